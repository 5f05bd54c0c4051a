"""`kdbench publish`: the small tables and plots of a run, for committing."""

from pathlib import Path

import click

from kdbench.cli.options import OUT


@click.command("publish")
@click.argument("name", metavar="RUN")
@OUT
def command(name: str, out: Path) -> None:
    """Copy the tables and plots of RUN to OUT/boards/<suite>/, with where they come from."""
    from kdbench.publish import publish
    from kdbench.store import find_run

    click.echo(f"published to {publish(find_run(name, out), out / 'boards')}")
