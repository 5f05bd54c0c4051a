"""`kdbench check`: what holds for an objective, and the failing numbers where it does not."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.templates import render
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
    from kdbench.authoring.conformance import check

    reports = []
    for variant in _variants(targets, plugins):
        findings = check(variant)
        reports.append(
            {
                "variant": variant.name,
                "kind": variant.objective.kind,
                "defined_at": variant.objective.defined_at,
                "ok": all(finding.ok for finding in findings),
                "findings": [asdict(finding) for finding in findings],
            }
        )
    if as_json:
        echo(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        echo(render("cli/check.txt", reports=reports), nl=False)
    if not all(report["ok"] for report in reports):
        sys.exit(1)


def _variants(targets: tuple[str, ...], plugins: tuple[Path, ...]) -> "list[Variant]":
    """Each variant once: the source of its sequences is no part of what is checked."""
    from dataclasses import replace

    from kdbench.variants.objective import METHODS, OBJECTIVES, PRESETS
    from kdbench.variants.select import expand, load_plugin
    from kdbench.variants.variant import DATASET, parse

    for path in plugins:
        load_plugin(path)
    found = []
    for target in targets:
        if not target.endswith(".py"):
            found += expand(target)
            continue
        load_plugin(Path(target))
        file = str(Path(target).resolve())
        for registry in (OBJECTIVES, PRESETS, METHODS):
            for name in registry:
                if registry.defined_at(name).rpartition(":")[0] == file:
                    found += [parse(name), *expand(name)]
    alone = [replace(variant, sequences=DATASET) for variant in found]
    return list({variant.full_name: variant for variant in alone}.values())
