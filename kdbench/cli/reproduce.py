"""`kdbench reproduce`: a published table, the runs it needs, and what they say of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.cli.echo import echo
from kdbench.cli.options import SEEDS, execution_options

if TYPE_CHECKING:
    from kdbench.compare.published import PublishedTable
    from kdbench.pipeline.plan import Request
    from kdbench.runs.folder import Run

TINY_SUITE = "instruct"


@click.command("reproduce")
@click.argument("table", required=False)
@click.option("--list", "listing", is_flag=True, help="List the published tables.")
@click.option(
    "--scale",
    type=click.Choice(["published", "tiny"]),
    default="published",
    show_default=True,
    help=f"tiny: the same rows on the suite {TINY_SUITE}, in minutes; rank agreement only.",
)
@click.option("--from", "finished", metavar="RUN", help="Compare a finished run; run nothing.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Also write to FILE.md (what is printed) or FILE.csv (every cell).",
)
@click.option("--force", is_flag=True, help="Replace the file of --output.")
@SEEDS
@click.option("--name", help="Name of the run.  [default: reproduce-TABLE]")
@execution_options
@click.option("--dry-run", is_flag=True, help="Only print the plans.")
def command(
    table: str | None,
    listing: bool,
    scale: str,
    finished: str | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
    **given: Any,
) -> None:
    """Run what a published TABLE needs, and say per cell whether it was reproduced.

    The same command again goes on where it stopped. A comparison needs several training seeds: the
    published figures are of one training each, so the spread has to come from ours.
    """
    from kdbench.cli.compare import check_output, show
    from kdbench.cli.plan import show_request
    from kdbench.cli.progress import end_with, print_failures
    from kdbench.cli.study import run_and_report
    from kdbench.compare.published import CONFIDENCE, load_published
    from kdbench.compare.reproduction import reproduce, to_markdown
    from kdbench.config.load import installed_suites
    from kdbench.pipeline.plan import make_plan
    from kdbench.runs.folder import find_run
    from kdbench.variants.select import load_plugin

    published = load_published()
    if listing:
        facts = {"confidence": CONFIDENCE, "installed": installed_suites()}
        echo(render("cli/published.txt", tables=published.tables, **facts), nl=False)
        return
    if table is None:
        raise UserError("name a table, or list them: kdbench reproduce --list")
    chosen, tiny = published.table(table), scale == "tiny"
    if output is not None:
        check_output(output, force)
    for path in given["plugins"]:
        load_plugin(path.resolve())
    failures = []
    if finished is not None:
        _check_flags(dry_run, given)
        run = find_run(finished, given["out"])
        runs = {_suite_of(run, chosen, tiny): run}
    else:
        requests = _requests(chosen, tiny, given)
        if dry_run:
            for request in requests.values():
                show_request(request)
            return
        plans = {suite: make_plan(request) for suite, request in requests.items()}
        runs = {suite: plan.run for suite, plan in plans.items()}
        for suite, plan in plans.items():
            seeds = f"{plan.seeds} seeds in {plan.run.path}"
            echo(f"{suite}: {len(plan.variants)} variants, {seeds}")
            failures += run_and_report(plan)
        print_failures(failures)
    found = reproduce(published, chosen, runs, tiny=tiny)
    show(to_markdown(found), found.frame(), output)
    end_with(failures)


def _check_flags(dry_run: bool, given: dict[str, Any]) -> None:
    """Refuses flags that say what to run, where nothing is run."""
    asked = {"--dry-run": dry_run, "--seeds": given["seeds"] is not None}
    asked |= {"--set": given["settings"] != (), "--name": given["name"] is not None}
    if flags := [name for name, present in asked.items() if present]:
        raise UserError(
            f"--from compares a finished run and runs nothing, so {', '.join(flags)} would do "
            "nothing; leave one of them out"
        )


def _suite_of(run: "Run", table: "PublishedTable", tiny: bool) -> str:
    """The suite of a finished run; a UserError where its figures say nothing of the table's."""
    suite = run.spec.shared.suite.name
    if not tiny and suite not in table.suites:
        raise UserError(
            f"{run.path}: a run of the suite {suite}, and {table.id} is about "
            f"{', '.join(table.suites)}: its figures cannot be compared. --scale tiny compares "
            "the order of the rows alone"
        )
    return suite


def _requests(table: "PublishedTable", tiny: bool, given: dict[str, Any]) -> "dict[str, Request]":
    """What to run, suite by suite; a UserError where a suite is missing or has no row to run."""
    from kdbench.base.registry import REFERENCES
    from kdbench.compare.reproduction import variants_of
    from kdbench.config.load import installed_suites
    from kdbench.pipeline.plan import Request

    suites = [TINY_SUITE] if tiny else table.suites
    if absent := [suite for suite in suites if suite not in installed_suites()]:
        raise UserError(
            f"{table.id} needs {', '.join(absent)}, not installed here; --scale tiny runs "
            f"its rows on {TINY_SUITE}, for rank agreement only"
        )
    name = given.pop("name") or f"reproduce-{table.id}{'-tiny' if tiny else ''}"
    requests = {}
    for suite in suites:
        names, lacking = variants_of(table, None if tiny else suite)
        for row, reason in lacking.items():
            echo(f"left out: {row}: {reason}")
        variants = dict.fromkeys(v for v in names.values() if v not in REFERENCES)
        if not variants:
            raise UserError(f"{table.id}: no row on {suite} that kdbench can run")
        own = f"{name}-{suite}" if len(suites) > 1 else name
        asked = {**given, "name": own, "suite": suite, "objectives": ",".join(variants)}
        requests[suite] = Request(**asked)
    return requests
