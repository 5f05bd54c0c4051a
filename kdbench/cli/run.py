"""`kdbench run`: distil, generate, score, rank."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.base.errors import UserError
from kdbench.cli.echo import echo
from kdbench.cli.options import request_options

if TYPE_CHECKING:
    from kdbench.launch.local import Failure
    from kdbench.pipeline.plan import Plan


@click.command("run")
@request_options
@click.option(
    "--accept",
    "board",
    metavar="BOARD",
    help="Take the trials of a board that was published with --trials as done; a name or a path.",
)
@click.option(
    "--publish",
    "publishing",
    is_flag=True,
    help="Publish, with the finished trials, after a trial is done (every five minutes at most).",
)
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option(
    "--track",
    "trackers",
    multiple=True,
    metavar="TRACKER",
    help="Also send to tensorboard, wandb, trackio or mlflow; comma-separated or repeated.",
)
def command(
    board: str | None, publishing: bool, dry_run: bool, trackers: Sequence[str], **given: Any
) -> None:
    """Distil a student with every objective, generate, score and rank.

    The same command again goes on where it stopped; more objectives or seeds extend the run. On
    another machine, --accept BOARD goes on from what --publish left in the committed board.
    """
    from kdbench.launch.local import early_worker, end_early_worker

    if not dry_run:
        click.get_current_context().with_resource(early_worker())
    from kdbench.cli.progress import end_with, print_failures
    from kdbench.pipeline.accept import find_board, judge, tell
    from kdbench.pipeline.plan import Request, make_plan
    from kdbench.report.private import check_suite
    from kdbench.report.publish import check_nothing_is_lost, publish_latest
    from kdbench.track import check_trackers

    chosen = check_trackers(trackers)
    plan = make_plan(Request(**given))
    folder = None if board is None else find_board(board, given["out"])
    offer = None if folder is None else judge(plan, folder)
    if dry_run:
        from kdbench.cli.plan import show

        accepted = [] if offer is None else [trial for trial, _ in offer.fitting]
        show(plan, as_json=False, accepted=accepted)
        for line in [] if offer is None else tell(offer):
            echo(f"  {line}")
        return
    boards = given["out"] / "boards" if publishing else None
    if publishing:
        check_suite(plan.shared.suite)  # and not after days of training
    if boards is not None and (folder is None or plan.tuning is None):
        # With --accept, what the board has and the command asks for; tuning has yet to choose.
        coming = [] if folder is None else [trial.files(plan.run) for trial in plan.trials]
        target = boards / plan.shared.suite.name
        check_nothing_is_lost(plan.run, target, plan.shared, trials=True, coming=coming)
    untuned: list[Failure] = []
    if plan.tuning is not None:
        plan, untuned = _tuned(plan)
    failures = _run(plan, chosen, folder, boards)
    end_early_worker()  # there was nothing to run
    print_failures(failures)
    if any(trial.files(plan.run).done is not None for trial in plan.trials):
        from kdbench.cli.report import show_report

        show_report(plan.run)
        if boards is not None:
            echo(publish_latest(plan.run, boards, trials=True))
    end_with([*untuned, *failures])


def _tuned(plan: "Plan") -> "tuple[Plan, list[Failure]]":
    """The plan with what dev chose, after the candidates that are not done yet have run.

    Objectives of which a candidate failed are left out; the failures are returned too.
    """
    from kdbench.cli.progress import end_with, print_failures
    from kdbench.pipeline.plan import write_spec
    from kdbench.pipeline.tuned_plan import chosen_plan, nested_plan

    write_spec(replace(plan, variants=[]))  # a command without --tuning is refused from here on
    nested = nested_plan(plan)
    echo(f"tuning: {len(nested.variants)} candidates in {nested.run.path}")
    failures = _run(nested, ())
    print_failures(failures)
    try:
        plan = chosen_plan(plan)
    except UserError:
        end_with(failures)
        raise
    echo(f"tuned on dev: {', '.join(variant.name for variant in plan.variants)}")
    return plan, failures


def _run(
    plan: "Plan",
    trackers: Sequence[str],
    board: Path | None = None,
    boards: Path | None = None,
) -> "list[Failure]":
    from kdbench.cli.progress import Progress
    from kdbench.cli.publish import Publisher
    from kdbench.pipeline.run import run
    from kdbench.track.child import Child

    child = click.get_current_context().with_resource(Child(plan.run, trackers, _warn))
    try:
        publisher = Publisher(plan.run, boards, _warn)
        with Progress(child.begin, publisher.after) as progress:
            failures = run(plan, progress, board)
    except KeyboardInterrupt:
        echo("Interrupted; the same command goes on from here.", err=True)
        sys.exit(130)
    return failures


def _warn(text: str) -> None:
    echo(f"Warning: {text}", err=True)
