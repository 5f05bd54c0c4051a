"""`kdbench objectives`: what is registered, and what one of them does."""

import json
from pathlib import Path

import click

from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.cli.compare import show_markdown
from kdbench.cli.echo import echo
from kdbench.cli.options import JSON, PLUGIN


@click.command("objectives")
@click.argument("name", required=False)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE.png|svg",
    help="Draw the gradient of NAME, and the student that descent on it ends with.",
)
@PLUGIN
@JSON
def command(name: str | None, plot: Path | None, plugins: tuple[Path, ...], as_json: bool) -> None:
    """List objectives, named settings, methods and sources, or tell all about NAME.

    NAME is one of them, or a variant such as "amid[alpha=3]".
    """
    from kdbench.authoring.catalogue import all_facts, facts_of, page
    from kdbench.variants.select import load_plugin
    from kdbench.variants.variant import load_objectives

    load_objectives()
    for path in plugins:
        load_plugin(path)
    told = all_facts() if name is None else facts_of(name)
    if plot is not None:
        _draw(name, plot)
    if as_json:
        echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif isinstance(told, list):
        show_markdown(render("cli/objectives.md", items=told))
    else:
        echo(page(told), nl=False)


def _draw(name: str | None, path: Path) -> None:
    if name is None:
        raise UserError("--plot draws one objective: kdbench objectives NAME --plot FILE.svg")
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in ("png", "svg"):
        raise UserError(f"--plot {path}: the name of a picture ends in .png or .svg")
    from kdbench.authoring.catalogue import pictured
    from kdbench.authoring.pictures import picture

    path.write_bytes(picture(pictured(name), suffix))
    echo(f"picture: {path}", err=True)
