"""Trackio: its local store, or the Space or server that its environment variables name."""

import contextvars
from typing import Any

import trackio

from kdbench.track import Points, Status, Subject


def begin(subject: Subject, known: str | None) -> "_TrackioSession":
    """Opens a trackio run in the group of the kdbench run.

    `trackio.init` ends the run that it finds in its context, so every trial gets a context of its
    own.
    """
    context = contextvars.copy_context()
    run = context.run(
        trackio.init,
        project="kdbench",
        name=known or f"{subject.run.name} {subject.name}",
        group=subject.run.name,
        config=subject.config,
        resume="must" if known else "never",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    return _TrackioSession(context, run)


class _TrackioSession:
    def __init__(self, context: contextvars.Context, run: Any) -> None:
        self.id = str(run.name)
        self._context, self._run = context, run

    def log(self, points: Points) -> None:
        for step, figures in points:
            self._context.run(self._run.log, figures, step=step)

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        if status != "open":
            self._context.run(self._run.log, {**figures, "status": status}, step=step)
        self._context.run(self._run.finish)
