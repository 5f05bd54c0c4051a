"""`kdbench track`: a run's trials, sent to experiment trackers."""

import io
import os
import select
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

import click

from kdbench.base.errors import UserError
from kdbench.cli.echo import echo
from kdbench.cli.options import OUT

SECONDS = 2.0
"""Between two looks at a run that goes on."""


@click.command("track")
@click.argument("name", metavar="RUN")
@OUT
@click.option(
    "--to",
    "trackers",
    multiple=True,
    required=True,
    metavar="TRACKER",
    help="tensorboard, wandb, trackio or mlflow; comma-separated or repeated.",
)
@click.option(
    "--follow", is_flag=True, help="Go on while the run does, until Ctrl-C or the end of input."
)
def command(name: str, out: Path, trackers: Sequence[str], follow: bool) -> None:
    """Send the training curves and final figures of RUN's trials to experiment trackers.

    Each trial is sent once: the same command again sends what is new.
    """
    from kdbench.base.store import locked
    from kdbench.runs.folder import find_run
    from kdbench.track import check_trackers
    from kdbench.track.follow import Follower

    run, chosen = find_run(name, out), check_trackers(trackers)
    if not (run.path / "trials").is_dir():
        raise UserError(f"{run.path}: no trials yet, and a published board never has any")
    busy = f"{run.path}: another command is sending this run to trackers"
    quiet = redirect_stdout(io.StringIO())  # trackio announces every run
    with locked(run.path / ".track.lock", None if follow else busy), quiet:
        follower = Follower(run, chosen, lambda text: echo(f"Warning: {text}", err=True))
        with suppress(KeyboardInterrupt):
            while follow and follower.alive and not _input_ended(SECONDS):
                follower.poll()
        follower.poll()
        follower.close()
    if follower.alive:
        echo(f"{run.path}: all there is has been sent to {', '.join(follower.alive)}")
    if len(follower.alive) < len(chosen):
        sys.exit(1)


def _input_ended(seconds: float) -> bool:
    """Waits, and says whether standard input has come to its end."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)
