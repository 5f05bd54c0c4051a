"""`kdbench run`: distil, generate, score, rank."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import request_options, to_request

if TYPE_CHECKING:
    from kdbench.cli.progress import Progress
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
    from kdbench.pipeline.accept import find_board, judge, tell
    from kdbench.pipeline.plan import make_plan
    from kdbench.report.private import check_suite
    from kdbench.report.publish import check_nothing_is_lost, publish_latest
    from kdbench.track import check_trackers

    chosen = check_trackers(trackers)
    plan = make_plan(to_request(**given))
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
    if plan.tuning is not None:
        plan = _tuned(plan)
    progress, failures = _run(plan, chosen, folder, boards)
    end_early_worker()  # there was nothing to run
    if any(trial.files(plan.run).done is not None for trial in plan.trials):
        from kdbench.cli.report import show_report

        show_report(plan.run, rebuild=progress.worked or failures != [] or folder is not None)
        if boards is not None:
            echo(publish_latest(plan.run, boards, trials=True))
    _report_failures(failures)


def _tuned(plan: "Plan") -> "Plan":
    """The plan with what dev chose, after the candidates that are not done yet have run."""
    from kdbench.pipeline.plan import write_spec
    from kdbench.pipeline.tuned_plan import chosen_plan, nested_plan

    write_spec(replace(plan, variants=[]))  # a command without --tuning is refused from here on
    nested = nested_plan(plan)
    echo(f"tuning: {len(nested.variants)} candidates in {nested.run.path}")
    _report_failures(_run(nested, ())[1])
    plan = chosen_plan(plan)
    echo(f"tuned on dev: {', '.join(variant.name for variant in plan.variants)}")
    return plan


def _run(
    plan: "Plan",
    trackers: Sequence[str],
    board: Path | None = None,
    boards: Path | None = None,
) -> "tuple[Progress, list[Failure]]":
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
    return progress, failures


def _report_failures(failures: "list[Failure]") -> None:
    from kdbench.cli.progress import print_failures

    print_failures(failures)
    if failures:
        sys.exit(1)


def _warn(text: str) -> None:
    echo(f"Warning: {text}", err=True)
