"""`kdbench compare`: what differs between runs, and which differences are beyond noise."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.errors import UserError
from kdbench.base.plain import csv_of
from kdbench.cli.echo import echo
from kdbench.cli.options import OUT

if TYPE_CHECKING:
    import pandas as pd


@click.command("compare")
@click.argument("names", metavar="RUN_A RUN_B [RUN...]", nargs=-1, required=True)
@OUT
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Also write to FILE.md (what is printed) or FILE.csv (every set and metric).",
)
@click.option("--force", is_flag=True, help="Replace the file of --output.")
def command(names: tuple[str, ...], out: Path, output: Path | None, force: bool) -> None:
    """Compare every run with the first: the spec, the results, and what is beyond noise.

    A run is a name below --out or a folder; a published board (results/boards/instruct) is compared
    as far as its tables allow.
    """
    from kdbench.runs.folder import find_run

    runs = [find_run(name, out) for name in names]
    if output is not None:
        check_output(output, force)

    import pandas as pd

    from kdbench.compare import compare, labels, to_markdown

    pairs = compare(runs, labels(runs, names))
    frame = pd.concat([pair.rows for pair in pairs], ignore_index=True)
    show(to_markdown(pairs), frame, output)


def show(text: str, frame: "pd.DataFrame", output: Path | None) -> None:
    """Prints Markdown, and writes it or its figures to a file."""
    from kdbench.base.store import write_text

    if output is not None and output.suffix == ".csv":
        write_text(output, csv_of(frame))
    elif output is not None:
        write_text(output, text)
    show_markdown(text)
    if output is not None:
        echo(f"written to {output}")


def show_markdown(text: str) -> None:
    """Prints Markdown, laid out where a person watches."""
    if not sys.stdout.isatty():
        echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def check_output(output: Path, force: bool) -> None:
    """Refuses a file of another suffix, one that is there, and a folder of that name."""
    if output.suffix not in (".md", ".csv"):
        raise UserError(f"--output {output}: its name has to end in .md or .csv")
    if output.is_dir():
        raise UserError(f"--output {output}: a folder of that name is there")
    if output.exists() and not force:
        raise UserError(f"--output {output}: the file is there already; --force replaces it")
