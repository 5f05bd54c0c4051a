"""`kdbench objectives`: what is registered, and what one of them does."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.errors import UserError
from kdbench.cli.options import JSON, PLUGIN

if TYPE_CHECKING:
    from kdbench.authoring.facts import Facts

WIDTH = 100


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
    from kdbench.authoring.facts import all_facts, facts_of
    from kdbench.variants.select import load_plugin
    from kdbench.variants.variant import load_objectives

    load_objectives()
    for path in plugins:
        load_plugin(path)
    told = all_facts() if name is None else facts_of(name)
    if plot is not None:
        _draw(name, plot)
    if as_json:
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif isinstance(told, list):
        _print_table(told)
    else:
        click.echo("\n".join(_page(told)))


def _draw(name: str | None, path: Path) -> None:
    if name is None:
        raise UserError("--plot draws one objective: kdbench objectives NAME --plot FILE.svg")
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in ("png", "svg"):
        raise UserError(f"--plot {path}: the name of a picture ends in .png or .svg")
    from kdbench.authoring.draw import picture
    from kdbench.authoring.facts import pictured

    path.write_bytes(picture(pictured(name), suffix))
    click.echo(f"picture: {path}", err=True)


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


def _page(item: "Facts") -> Iterator[str]:
    """Everything about one item, as lines of text."""
    yield f"{item['name']}  ({item['kind']})"
    yield ""
    yield from _indented(item["description"])
    yield ""
    for title, text in _rows(item):
        lines = text.splitlines() or [""]
        yield f"{title:<12} {lines[0]}"
        yield from (" " * 13 + line for line in lines[1:])


def _rows(item: "Facts") -> Iterator[tuple[str, str]]:
    from kdbench.authoring.facts import infinities

    if "expression" in item:
        yield "is", item["expression"]
    if item["source"]:
        yield "source", item["source"]
    if "group" in item:
        yield "group", item["group"]
    if item.get("aliases"):
        yield "also called", ", ".join(item["aliases"])
    if item["parameters"]:
        yield "parameters", _parameters(item)
    for name, values in item.get("grid", {}).items():
        yield "grid", f"{name} in {', '.join(f'{value:g}' for value in values)}"
    if "infinite_where" in item:
        yield "infinities", infinities(item)
    if sequences := item.get("sequences"):
        yield "sequences", "\n".join([sequences["name"], *_wrapped(sequences["description"])])
        if sequences["parameters"]:
            yield "", _parameters(sequences)
    yield "defined at", item["defined_at"]
    yield "for example", f'--objectives "{item["example"]}"'


def _parameters(item: "Facts") -> str:
    lines = []
    for parameter in item["parameters"]:
        default, value = parameter["default"], parameter.get("value")
        chosen = default if value is None else f"{value} (by default {default})"
        lines.append(f"{parameter['name']} = {chosen} in {parameter['range']}")
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return textwrap.indent("\n".join(_wrapped(text)), "  ").splitlines()


def _wrapped(text: str) -> list[str]:
    """Lines of at most `WIDTH`; what was broken by hand stays as it is."""
    return [part for line in text.splitlines() for part in textwrap.wrap(line, WIDTH) or [""]]
