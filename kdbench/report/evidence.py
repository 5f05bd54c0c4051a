"""Writes how sure a run's order is, and how its trainings went."""

from dataclasses import dataclass

import pandas as pd

from kdbench.base.store import write_bytes, write_text
from kdbench.report.evidence_data import GREEDY, Evidence, collect
from kdbench.report.evidence_plots import draw_evidence
from kdbench.report.evidence_stability import stability_markdown
from kdbench.report.evidence_tables import comparisons_frame, ranks_frame, spikes_frame
from kdbench.report.evidence_text import evidence_markdown
from kdbench.report.evidence_variance import variance_frame
from kdbench.report.plots import to_bytes
from kdbench.report.stability_tables import stability_comparisons_frame
from kdbench.report.table import Board
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult


@dataclass(frozen=True)
class Written:
    """A run's evidence as it was written.

    Attributes:
        evidence: what it rests on.
        comparisons: the `comparisons_frame`.
        text: of evidence.md.
    """

    evidence: Evidence
    comparisons: pd.DataFrame
    text: str


def write_evidence(run: Run, board: Board) -> Written | None:
    """Writes `stability.md` and its tables, and, where variants can be compared, the evidence.

    That is `evidence.md`, `{ranks,comparisons,variance}[_greedy].csv` and `plots/{ranks,profiles}`;
    it takes two ranked variants that share a training seed.

    Args:
        run: where to.
        board: the run's, with at least one finished trial.

    Returns:
        The evidence; None where there is nothing to compare.
    """
    if board.stability:
        write_text(run.path / "stability.md", stability_markdown(board, run.path.name))
        _write_csv(run, "spikes", spikes_frame(board))
        _write_csv(run, "stability_comparisons", stability_comparisons_frame(board))
    evidence = collect(board)
    if evidence is None:
        return None
    ranks, comparisons = ranks_frame(evidence), comparisons_frame(evidence)
    variance = variance_frame(evidence)
    _write_csv(run, "ranks", ranks)
    _write_csv(run, "comparisons", comparisons)
    _write_csv(run, "variance", variance)
    greedy = _write_greedy(run, board)
    text = evidence_markdown(evidence, ranks, comparisons, variance, greedy)
    write_text(run.path / "evidence.md", text)
    for name, figure in draw_evidence(evidence).items():
        for suffix in ("png", "svg"):
            write_bytes(run.path / "plots" / f"{name}.{suffix}", to_bytes(figure, suffix))
    return Written(evidence, comparisons, text)


def _write_greedy(run: Run, board: Board) -> pd.DataFrame | None:
    """Writes the tables of greedy ROUGE-L, where the run has it, and returns its ranks."""
    if any((name, GREEDY) not in trial.scores for name in board.sets for trial in _ranked(board)):
        return None
    greedy = collect(board, GREEDY)
    if greedy is None:
        return None
    ranks = ranks_frame(greedy)
    _write_csv(run, "ranks_greedy", ranks)
    _write_csv(run, "comparisons_greedy", comparisons_frame(greedy))
    _write_csv(run, "variance_greedy", variance_frame(greedy))
    return ranks


def _ranked(board: Board) -> list[TrialResult]:
    return [trial for name in board.stability for trial in board.trials[name]]


def _write_csv(run: Run, name: str, frame: pd.DataFrame) -> None:
    write_text(run.path / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
