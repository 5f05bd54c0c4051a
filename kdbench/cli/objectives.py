"""`kdbench objectives`: what is registered."""

import json
from pathlib import Path
from typing import Any

import click

from kdbench.cli.options import JSON, PLUGIN


@click.command("objectives")
@PLUGIN
@JSON
def command(plugins: tuple[Path, ...], as_json: bool) -> None:
    """List objectives and presets with kind, parameters, source and where they are defined."""
    items = _items(plugins)
    if as_json:
        click.echo(json.dumps(items, indent=2, ensure_ascii=False))
        return
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


def _items(plugins: tuple[Path, ...]) -> list[dict[str, Any]]:
    from kdbench.expressions import load_objectives, load_plugin
    from kdbench.objective import ALIASES, OBJECTIVES, PRESETS

    load_objectives()
    for path in plugins:
        load_plugin(path)
    items: list[dict[str, Any]] = []
    for name in OBJECTIVES:
        objective = OBJECTIVES[name]
        parameters = [
            {
                "name": key,
                "default": parameter.write(parameter.default),
                "range": parameter.describe(),
            }
            for key, parameter in objective.parameters.items()
        ]
        items.append(
            {
                "name": name,
                "kind": objective.kind,
                "group": objective.group,
                "aliases": [alias for alias, target in ALIASES.items() if target == name],
                "parameters": parameters,
                "grid": {key: list(values) for key, values in objective.grid.items()},
                "source": objective.source,
                "description": objective.description,
                "defined_at": objective.defined_at,
            }
        )
    for name in PRESETS:
        preset = PRESETS[name]
        items.append(
            {
                "name": name,
                "kind": "preset",
                "parameters": [],
                "expression": preset.expression,
                "source": preset.source,
                "defined_at": PRESETS.defined_at(name),
            }
        )
    return items
