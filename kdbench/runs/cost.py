"""What the trainings of a run took. Seconds are measured, so no other table holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "variant",
    "n_seeds",
    "train_seconds",
    "train_seconds_min",
    "train_seconds_max",
    "tokens",
    "teacher_passes",
    "generated_tokens",
)


@dataclass(frozen=True)
class Cost:
    """What one training took, or the mean of several.

    Attributes:
        train_seconds: wall clock of the training alone, beside whatever else the machine ran.
        tokens: that the student was trained on.
        teacher_passes: sequences that went through the teacher's body; 0 with the shared cache.
        generated_tokens: sampled during the training.
    """

    train_seconds: float
    tokens: float
    teacher_passes: float
    generated_tokens: float


def read_cost(done: dict[str, Any]) -> Cost:
    """From a trial's DONE.json; what an older version of kdbench did not count is 0."""
    return Cost(
        train_seconds=done.get("train_seconds", 0.0),
        tokens=done.get("tokens", 0),
        teacher_passes=done.get("teacher_passes", 0),
        generated_tokens=done.get("generated_tokens", 0),
    )


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """The mean over trials, of each figure."""
    return Cost(*(float(np.mean(figures)) for figures in zip(*map(_figures, costs), strict=True)))


def cost_frame(costs: dict[str, list[Cost]]) -> pd.DataFrame:
    """One row per variant: means over its trials, and the fastest and slowest of them."""
    rows = []
    for variant, group in costs.items():
        seconds = [cost.train_seconds for cost in group]
        mean = mean_cost(group)
        low, high = min(seconds), max(seconds)
        rows.append((variant, len(group), mean.train_seconds, low, high, *_figures(mean)[1:]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _figures(cost: Cost) -> tuple[float, ...]:
    return cost.train_seconds, cost.tokens, cost.teacher_passes, cost.generated_tokens
