"""Writes a run's tables and plots into its folder."""

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.store import write_bytes, write_text
from kdbench.report.latex import to_latex
from kdbench.report.render import to_markdown
from kdbench.report.table import build_board, stability_frame, to_frame
from kdbench.runs.folder import Run
from kdbench.runs.results import cost_frame


def write_report(run: Run, samples: int | None = None) -> pd.DataFrame:
    """Writes `leaderboard.{csv,md,tex,html}`, `{stability,cost}.csv` and `plots/`.

    Each file is written whole or not at all; nothing else in the folder is touched.

    Args:
        run: of which at least one trial is finished.
        samples: of each evaluation set, on the page; None for as many as fit into 5 MB.

    Returns:
        The tidy leaderboard.

    Raises:
        UserError: no trial is finished, or trials were scored on different sets.
    """
    from kdbench.report.evidence import write_evidence
    from kdbench.report.html import to_html
    from kdbench.report.plots import draw_all, to_bytes
    from kdbench.report.tuning import write_tuning

    board = build_board(run)
    if not board.trials:
        raise UserError(f"{run.path}: no finished trial to report on; run it first")
    frame = to_frame(board)
    write_text(run.path / "leaderboard.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(run.path / "leaderboard.md", to_markdown(board, run.path.name))
    write_text(run.path / "leaderboard.tex", to_latex(board, run.path.name))
    stability = stability_frame(board).to_csv(index=False, lineterminator="\n")
    write_text(run.path / "stability.csv", stability)
    cost = cost_frame(board.costs()).to_csv(index=False, lineterminator="\n")
    write_text(run.path / "cost.csv", cost)
    written = write_evidence(run, board)
    write_tuning(run, board)
    write_text(run.path / "leaderboard.html", to_html(board, run, samples, written))
    for name, figure in draw_all(board).items():
        for suffix in ("png", "svg"):
            write_bytes(run.path / "plots" / f"{name}.{suffix}", to_bytes(figure, suffix))
    return frame
