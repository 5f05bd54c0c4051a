"""`kdbench new-objective`: a file to start from, and its test."""

import importlib.util
import keyword
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.errors import UserError
from kdbench.cli.echo import echo

if TYPE_CHECKING:
    from kdbench.authoring.scaffold import Kind

LONGEST = 32
"""Longer names are cut in tables and plots."""


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
    from kdbench.authoring.scaffold import files

    _refuse_name(name)
    _refuse_folder(folder)
    written = {folder / file: text for file, text in files(name, kind).items()}
    for path in written:
        if path.exists():
            raise UserError(f"{path} exists, and is left as it is; take another name or --dir")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        echo(f"wrote {path}")
    objective, test = (shlex.quote(str(path)) for path in written)
    echo(
        f"\nNow change the formula and the source in {objective}, and then:\n\n"
        f"  kdbench check {objective}\n"
        f"  pytest {test}\n"
        f"  kdbench run --plugin {objective} --objectives {name},forward-kl"
    )


def _refuse_name(name: str) -> None:
    from kdbench import api
    from kdbench.authoring.scaffold import module_of
    from kdbench.base.registry import REFERENCES
    from kdbench.variants.objective import GROUPS, NAME, NAMES, SOURCES
    from kdbench.variants.variant import load_objectives

    load_objectives()
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UserError(
            f"'{name}' cannot be an objective's name: it is lower-case words joined by '-', "
            f"such as my-loss, of at most {LONGEST} characters"
        )
    if name in NAMES:
        raise UserError(f"'{name}' is taken by {NAMES.defined_at(name)}; choose another name")
    if name in SOURCES or name in (*GROUPS, *REFERENCES):
        raise UserError(f"'{name}' means something else to kdbench; choose another name")
    module = module_of(name)
    if keyword.iskeyword(module) or module in api.__all__ or _is_installed(module):
        raise UserError(
            f"'{name}' cannot be a file {module}.py: Python or kdbench has a {module} of its own, "
            "and one would hide the other; choose another name"
        )


def _is_installed(module: str) -> bool:
    if module in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(module)
    # A file in the folder that the command is called in hides nothing.
    return found is not None and Path(found.origin or "").parent != Path().resolve()


def _refuse_folder(folder: Path) -> None:
    """In a package whose modules are all imported, a test would be too."""
    from importlib.metadata import entry_points

    from kdbench.base.registry import module_folder

    for point in entry_points(group="kdbench.objectives"):
        if module_folder(point) == folder.resolve():
            raise UserError(
                f"every file in {folder} is taken for an objective, and a test is none; write "
                "them elsewhere, and move the objective there when it is ready"
            )
