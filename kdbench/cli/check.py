"""`kdbench check`: what holds for an objective, and the failing numbers where it does not."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import JSON, PLUGIN

if TYPE_CHECKING:
    from kdbench.variants.variant import Variant


@click.command("check")
@click.argument("targets", nargs=-1, required=True, metavar="FILE.py|OBJECTIVE...")
@PLUGIN
@JSON
def command(targets: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool) -> None:
    """Hold objectives to what the harness relies on: my_loss.py, or names as --objectives has them.

    Of a file the objectives that it registers are checked, with their defaults and with the grid
    that they declare. Exit code 1 where something does not hold.
    """
    reports = [_report(variant) for variant in _variants(targets, plugins)]
    if as_json:
        echo(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        for report in reports:
            _show(report)
    if not all(report["ok"] for report in reports):
        sys.exit(1)


def _variants(targets: tuple[str, ...], plugins: tuple[Path, ...]) -> "list[Variant]":
    """Each variant once: the source of its sequences is no part of what is checked."""
    from dataclasses import replace

    from kdbench.variants.select import expand, load_plugin
    from kdbench.variants.variant import DATASET

    for path in plugins:
        load_plugin(path)
    found = []
    for target in targets:
        if target.endswith(".py"):
            found += _registered_by(Path(target))
        else:
            found += expand(target)
    alone = [replace(variant, sequences=DATASET) for variant in found]
    return list({variant.full_name: variant for variant in alone}.values())


def _registered_by(path: Path) -> "list[Variant]":
    from kdbench.variants.objective import METHODS, OBJECTIVES, PRESETS
    from kdbench.variants.select import expand, load_plugin
    from kdbench.variants.variant import parse

    load_plugin(path)
    file = str(path.resolve())
    names = [
        name
        for registry in (OBJECTIVES, PRESETS, METHODS)
        for name in registry
        if registry.defined_at(name).rpartition(":")[0] == file
    ]
    return [variant for name in names for variant in (parse(name), *expand(name))]


def _report(variant: "Variant") -> dict[str, Any]:
    from dataclasses import asdict

    from kdbench.authoring.conformance import check

    findings = check(variant)
    return {
        "variant": variant.name,
        "kind": variant.objective.kind,
        "defined_at": variant.objective.defined_at,
        "ok": all(finding.ok for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    findings = report["findings"]
    held = sum(finding["ok"] for finding in findings)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row("ok" if finding["ok"] else "WRONG", finding["property"])
        if not finding["ok"]:
            table.add_row("", f"  {finding['detail']}")
    width = None if sys.stdout.isatty() else 150
    console = Console(highlight=False, markup=False, width=width)
    console.print(f"{report['variant']} ({report['defined_at']}): {held} of {len(findings)} hold")
    console.print(table)
