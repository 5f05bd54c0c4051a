"""Weights & Biases, as its own environment variables say; offline files lie in the run's folder."""

import os
from typing import Any

import wandb

from kdbench.track import Points, Status, Subject


def begin(subject: Subject, known: str | None) -> "_WandbSession":
    """Opens a wandb run in the group of the kdbench run; several may be open at once."""
    run = wandb.init(
        project=None if "WANDB_PROJECT" in os.environ else "kdbench",
        dir=None if "WANDB_DIR" in os.environ else subject.run,
        group=subject.run.name,
        name=subject.name,
        config=subject.config,
        id=known,
        resume="allow" if known else None,
        reinit="create_new",
        save_code=False,
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            x_disable_stats=True,  # of this process, which does not train
        ),
    )
    return _WandbSession(run)


class _WandbSession:
    def __init__(self, run: Any) -> None:
        self.id = str(run.id)
        self._run = run

    def log(self, points: Points) -> None:
        for step, figures in points:
            self._run.log(figures, step=step)

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        self._run.summary.update({**figures, "status": status})
        self._run.finish(exit_code=int(status == "open"))
