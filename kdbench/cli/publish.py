"""`kdbench publish`: the small tables and plots of a run, for committing."""

import time
from collections.abc import Callable
from pathlib import Path

import click

from kdbench.base.errors import UserError
from kdbench.cli.echo import echo
from kdbench.cli.options import OUT
from kdbench.launch.local import Task
from kdbench.runs.folder import Run

PAUSE = 300.0
"""Between two publications of a run that goes on."""


@click.command("publish")
@click.argument("name", metavar="RUN")
@OUT
@click.option(
    "--trials",
    is_flag=True,
    help="Also the finished trials' scores, logs and answers, for `kdbench run --accept`.",
)
def command(name: str, out: Path, trials: bool) -> None:
    """Copy the tables and plots of RUN to OUT/boards/<suite>/, with where they come from.

    Of a run that is not finished, or going on just now, those of the trials that are.

    Of a study, its answers and its runs' tables to OUT/boards/<study>/.
    """
    from kdbench.study.design import find_study

    boards = out / "boards"
    if (study := find_study(name, out)) is not None:
        from kdbench.study.report import publish_study

        if trials:
            raise UserError(f"--trials: {name} is a study, whose board holds tables alone")
        echo(f"published to {publish_study(study, boards)}")
        return
    from kdbench.report.publish import publish_latest
    from kdbench.runs.folder import find_run

    echo(publish_latest(find_run(name, out), boards, trials=trials))


class Publisher:
    """Publishes a run while it goes on; what goes wrong is a warning, and the run goes on."""

    def __init__(self, run: Run, boards: Path | None, warn: Callable[[str], None]) -> None:
        self._run, self._boards, self._warn = run, boards, warn
        self._due = 0.0

    def after(self, task: Task) -> None:
        """Publishes where a trial has just been scored and the last time was long enough ago."""
        from kdbench.pipeline.trial import score_answers
        from kdbench.report.publish import publish_latest

        if self._boards is None or task.call is not score_answers or time.monotonic() < self._due:
            return
        try:
            publish_latest(self._run, self._boards, trials=True)
        except Exception as error:  # whatever it is, hours of training must not end by it
            self._warn(f"not published: {type(error).__name__}: {error}")
        self._due = time.monotonic() + PAUSE
