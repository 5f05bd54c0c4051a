"""`kdbench report`: tables and plots from stored rows."""

import sys
from pathlib import Path

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import OUT
from kdbench.runs.folder import Run, find_run


@click.command("report")
@click.argument("name", metavar="RUN")
@OUT
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    help="Samples of each set in leaderboard.html.  [default: at most 20, within 5 MB]",
)
def command(name: str, out: Path, samples: int | None) -> None:
    """Rebuild the leaderboard, the stability table and the plots of RUN from its stored rows.

    Of a study, its answers and plots.
    """
    from kdbench.study.design import find_study

    if (study := find_study(name, out)) is not None:
        from kdbench.cli.study import show_study

        show_study(study)
        return
    show_report(find_run(name, out), rebuild=True, samples=samples)


def show_report(run: Run, *, rebuild: bool = False, samples: int | None = None) -> None:
    """Prints a run's table, after writing its report where that is asked for or due."""
    from rich.console import Console

    from kdbench.report.publish import reporting
    from kdbench.report.render import to_console
    from kdbench.report.stamp import is_current
    from kdbench.report.table import build_board
    from kdbench.report.write import write_report

    with reporting(run):
        if rebuild or not is_current(run):
            write_report(run, samples)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    console.print(to_console(build_board(run), run.path.name))
    echo(
        f"tables and plots: {run.path}/leaderboard.html (with curves and samples), "
        "leaderboard.{md,csv,tex}, cost.csv, plots/"
    )
