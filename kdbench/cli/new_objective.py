"""`kdbench new-objective`: a file to start from, and its test."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.templates import render
from kdbench.cli.echo import echo

if TYPE_CHECKING:
    from kdbench.authoring.scaffold import Kind


@click.command("new-objective")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["divergence", "labelled", "stateful"]),
    default="divergence",
    show_default=True,
    help="Of two distributions; with the labels too; or one that changes as training goes on.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write.  [default: here]",
)
def command(name: str, kind: "Kind", folder: Path) -> None:
    """Write an objective NAME that works, and its test, to be changed into yours."""
    from kdbench.authoring.scaffold import scaffold

    paths = scaffold(name, kind, folder)
    objective, test = (shlex.quote(str(path)) for path in paths)
    words = {"title": name, "paths": paths, "objective": objective, "test": test}
    echo(render("cli/new_objective.txt", **words), nl=False)
