"""Sends a run's trials to the experiment trackers that people already use.

A tracker reads what lies in the run's folder and nothing else, while the run goes on or afterwards;
none is imported before it is asked for.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from kdbench.base.errors import UserError
from kdbench.base.registry import unknown

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Each is also the name of the library that it needs, and of the extra that installs it."""

Status = Literal["done", "diverged", "open"]
"""How a trial ended; an `open` one has not, and may be opened again."""
Points = Sequence[tuple[int, dict[str, float]]]
"""Training steps with their finite figures."""


@dataclass(frozen=True)
class Subject:
    """What a tracker's run stands for: one trial."""

    run: Path
    folder: str
    """Of the trial, below the run's `trials/`."""
    name: str
    """The variant and its seeds."""
    config: dict[str, Any]
    """The trial's spec.json as `trial`, the run's shared spec as `shared`."""


class Session(Protocol):
    """One trial in one tracker, opened and not yet closed."""

    @property
    def id(self) -> str:
        """By which the tracker finds it again."""

    def log(self, points: Points) -> None:
        """Adds steps of the training."""

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        """Closes it, with the final figures of a trial that has ended at a step."""


def check_trackers(given: Iterable[str]) -> list[str]:
    """The trackers that a user named, comma-separated or one by one, each once.

    Raises:
        UserError: there is none of that name, or its library is not installed.
    """
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in TRACKERS:
            raise UserError(unknown("tracker", name, list(TRACKERS)))
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a bare folder of that name is no library
            raise UserError(
                f"tracker {name}: the library {name} is not installed; "
                f"pip install 'kdbench[{name}]'"
            )
    return list(dict.fromkeys(names))


def open_session(tracker: str, subject: Subject, known: str | None) -> Session:
    """Opens a trial in a tracker, again where it is `known` there by an id."""
    module = importlib.import_module(f"kdbench.track.to_{tracker}")
    begin: Callable[[Subject, str | None], Session] = module.begin
    return begin(subject, known)


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `outer.inner` keys, lists as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return found
