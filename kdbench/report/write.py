"""Writes all that a run's report is: tables, page, evidence and plots."""

import pandas as pd

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.report.render import to_latex, to_markdown
from kdbench.report.stamp import clear_stamp, sources, write_stamp
from kdbench.report.table import build_board, stability_frame, to_frame, write_csv
from kdbench.runs.folder import Run
from kdbench.runs.results import cost_frame


def write_report(run: Run, samples: int | None = None) -> pd.DataFrame:
    """Writes `leaderboard.{csv,md,tex,html}`, `{stability,cost}.csv`, the evidence and `plots/`.

    Each file is written whole or not at all, report.json last; nothing else in the folder is
    touched. The page has
    `samples` of each set, by default as many as fit into 5 MB. Returns the tidy leaderboard.

    Raises:
        UserError: no trial is finished, or trials were scored on different sets.
    """
    from kdbench.report.evidence import write_evidence
    from kdbench.report.page import to_html
    from kdbench.report.plots import draw_all, write_plots
    from kdbench.report.tuning import write_tuning

    computed_from = sources(run)
    board = build_board(run)
    if not board.trials:
        raise UserError(f"{run.path}: no finished trial to report on; run it first")
    clear_stamp(run)
    frame = to_frame(board)
    tables = {"stability": stability_frame(board), "cost": cost_frame(board.costs())}
    for name, table in {"leaderboard": frame, **tables}.items():
        write_csv(run.path / f"{name}.csv", table)
    store.write_text(run.path / "leaderboard.md", to_markdown(board, run.path.name))
    store.write_text(run.path / "leaderboard.tex", to_latex(board, run.path.name))
    written = write_evidence(run, board)
    write_tuning(run, board)
    store.write_text(run.path / "leaderboard.html", to_html(board, run, samples, written))
    write_plots(run, draw_all(board))
    write_stamp(run, computed_from)
    return frame
