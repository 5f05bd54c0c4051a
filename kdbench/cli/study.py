"""`kdbench study`: one parameter over a grid of others, and what the grid answers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import SEEDS, SUITE, execution_options

if TYPE_CHECKING:
    from kdbench.launch.local import Failure
    from kdbench.pipeline.plan import Plan


@click.command("study")
@click.argument("parameter")
@click.option("--objective", help="Which has PARAMETER, e.g. amid.  [default for alpha: amid]")
@SUITE
@click.option("--values", help="Of PARAMETER, e.g. -5,-1,1.  [default: the declared grid]")
@click.option(
    "--by",
    multiple=True,
    metavar="PARAMETER=VALUES",
    help="Also vary this one, e.g. order=pr,qr; may be repeated.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="VARIANT[:PARAMETER=VALUE,...]",
    help="Compare with this variant or PARAMETER=VALUE, in the settings named; may be repeated.",
)
@click.option(
    "--student",
    "students",
    multiple=True,
    metavar="NAME[=FIELD:VALUE,...]",
    help="A student size, by fields of the suite; may be repeated.  [default: the suite's own]",
)
@SEEDS
@click.option("--name", help="Name of the study.  [default: study-PARAMETER]")
@execution_options
@click.option("--dry-run", is_flag=True, help="Only print the plans.")
def command(
    parameter: str,
    objective: str | None,
    values: str | None,
    by: tuple[str, ...],
    against: tuple[str, ...],
    students: tuple[str, ...],
    dry_run: bool,
    **given: Any,
) -> None:
    """Run PARAMETER over a grid; say whether tuning it pays and whether one value is always best.

    The same command again goes on where it stopped. `kdbench report` and `kdbench publish` take the
    name of a study too.
    """
    from kdbench.cli.progress import end_with, print_failures
    from kdbench.pipeline.plan import Request
    from kdbench.study.design import write_design
    from kdbench.study.expand import Question, make_design, make_plans
    from kdbench.variants.select import load_plugin

    for path in given["plugins"]:
        load_plugin(path.resolve())
    suite = given["suite"]
    question = Question(parameter, suite, objective, values, by, against, students)
    design, variants = make_design(question)
    plans = make_plans(design, variants, Request(**given))
    for text in design.left_out:
        echo(f"left out: {text}")
    if dry_run:
        from kdbench.cli.plan import show

        for plan in plans.values():
            show(plan, as_json=False)
        return
    folder = next(iter(plans.values())).run.path.parent
    write_design(folder, design)
    failures = []
    for student, plan in plans.items():
        echo(f"student {student}:")
        failures += run_and_report(plan)
    print_failures(failures)
    show_study(folder)
    end_with(failures)


def show_study(folder: Path) -> None:
    """Writes a study's report and prints its answers."""
    from kdbench.study.report import short_answers, write_study

    study, answers = write_study(folder)
    for line in short_answers(study, answers):
        echo(line)
    echo(f"answers, tables and plots: {folder}/study.md, {{study,answers,best}}.csv, plots/")


def run_and_report(plan: "Plan") -> "list[Failure]":
    """Runs what is not done yet, and writes the run's report."""
    from kdbench.cli.progress import Progress
    from kdbench.pipeline.run import run
    from kdbench.report.publish import reporting
    from kdbench.report.stamp import is_current
    from kdbench.report.write import write_report

    try:
        with Progress() as progress:
            failures = run(plan, progress)
    except KeyboardInterrupt:
        echo("Interrupted; the same command goes on from here.", err=True)
        sys.exit(130)
    finished = any(trial.files(plan.run).done is not None for trial in plan.trials)
    if finished:
        with reporting(plan.run):
            if not is_current(plan.run):
                write_report(plan.run)
    return failures
