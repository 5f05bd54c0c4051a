"""`kdbench run`: distil, generate, score, rank."""

import sys
from typing import Any

import click

from kdbench.cli.options import request_options, to_request


@click.command("run")
@request_options
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
def command(dry_run: bool, **given: Any) -> None:
    """Distil a student with every objective, generate, score and rank.

    The same command again goes on where it stopped; more objectives or seeds extend the run.
    """
    from kdbench.plan import make_plan

    plan = make_plan(to_request(**given))
    if dry_run:
        from kdbench.cli.plan import show

        show(plan, as_json=False)
        return
    from kdbench.cli.progress import Progress
    from kdbench.run import run

    try:
        with Progress() as progress:
            failures = run(plan, progress)
    except KeyboardInterrupt:
        click.echo("Interrupted; the same command goes on from here.", err=True)
        sys.exit(130)
    if any(trial.files(plan.run).done is not None for trial in plan.trials):
        from kdbench.cli.report import show_report

        show_report(plan.run, rebuild=progress.worked or failures != [])
    for failure in failures:
        message = f"{failure.task.name}: {type(failure.error).__name__}: {failure.error}"
        click.echo(f"Failed: {message}", err=True)
    if failures:
        sys.exit(1)
