"""`kdbench objectives`: what is registered, and what one of them does."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.errors import UserError
from kdbench.cli.echo import echo
from kdbench.cli.options import JSON, PLUGIN

if TYPE_CHECKING:
    from kdbench.authoring.catalogue import Facts


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
        _print_table(told)
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


def _print_table(items: "list[Facts]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "kind", "parameters", "source"):
        table.add_column(column, overflow="fold")
    for item in items:
        parameters = (f"{p['name']}={p['default']} in {p['range']}" for p in item["parameters"])
        written = item.get("expression") or "\n".join(parameters)
        table.add_row(item["name"], item["kind"], written, item["source"])
    Console(highlight=False, markup=False).print(table)
