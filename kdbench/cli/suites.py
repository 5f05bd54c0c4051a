"""`kdbench suites`: what is installed."""

import json

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import JSON


@click.command("suites")
@JSON
def command(as_json: bool) -> None:
    """List the installed suites with their sets and models."""
    from kdbench.config.load import installed_suites, load_suite

    rows = []
    for name, path in installed_suites().items():
        suite = load_suite(str(path))
        rows.append({"name": name, "sets": list(suite.data.evaluation), "what": suite.description})
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        echo(f"{row['name']}: {', '.join(row['sets'])}\n  {' '.join(str(row['what']).split())}")
