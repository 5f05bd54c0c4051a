"""`kdbench report`: tables and plots from stored rows."""

from pathlib import Path

import click

from kdbench.cli.options import OUT
from kdbench.store import Run, find_run


@click.command("report")
@click.argument("name", metavar="RUN")
@OUT
def command(name: str, out: Path) -> None:
    """Rebuild the leaderboard, the stability table and the plots of RUN from its stored rows."""
    show(find_run(name, out))


def show(run: Run) -> None:
    """Writes the report of a run and prints its table."""
    from rich.console import Console

    from kdbench.report import build_board, to_console, write_report

    write_report(run)
    Console().print(to_console(build_board(run), run.path.name))
    click.echo(f"tables and plots: {run.path}/leaderboard.md, leaderboard.csv, plots/")
