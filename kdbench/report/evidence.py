"""Writes how sure a run's order is, and how its trainings went."""

import pandas as pd

from kdbench.report.evidence_data import collect
from kdbench.report.evidence_plots import draw_evidence
from kdbench.report.evidence_stability import stability_markdown
from kdbench.report.evidence_tables import comparisons_frame, ranks_frame, spikes_frame
from kdbench.report.evidence_text import evidence_markdown
from kdbench.report.evidence_variance import variance_frame
from kdbench.report.plots import to_bytes
from kdbench.report.table import Board
from kdbench.store import Run, write_bytes, write_text


def write_evidence(run: Run, board: Board) -> None:
    """Writes `stability.md` and `spikes.csv`, and, where variants can be compared, the evidence.

    That is `evidence.md`, `{ranks,comparisons,variance}.csv` and `plots/{ranks,profiles}`; it takes
    two ranked variants that share a training seed.

    Args:
        run: where to.
        board: the run's, with at least one finished trial.
    """
    if board.stability:
        write_text(run.path / "stability.md", stability_markdown(board, run.path.name))
        _write_csv(run, "spikes", spikes_frame(board))
    evidence = collect(board)
    if evidence is None:
        return
    ranks, comparisons = ranks_frame(evidence), comparisons_frame(evidence)
    variance = variance_frame(evidence)
    _write_csv(run, "ranks", ranks)
    _write_csv(run, "comparisons", comparisons)
    _write_csv(run, "variance", variance)
    text = evidence_markdown(evidence, ranks, comparisons, variance)
    write_text(run.path / "evidence.md", text)
    for name, figure in draw_evidence(evidence).items():
        for suffix in ("png", "svg"):
            write_bytes(run.path / "plots" / f"{name}.{suffix}", to_bytes(figure, suffix))


def _write_csv(run: Run, name: str, frame: pd.DataFrame) -> None:
    write_text(run.path / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
