"""The finished trials of a run, read from its folder."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.seal import DamagedError, check_file
from kdbench.base.store import read_jsonl
from kdbench.config.identity import Done, canonical
from kdbench.runs.folder import Run, TrialFiles
from kdbench.runs.scores import scores_of
from kdbench.stats.intervals import Floats

RANKED = ("rouge_l", "rouge_l_greedy", "exact_match")
"""Metrics of which more is better; length and distinct-2 have no better end."""
DIAGNOSTICS = {
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "tvd": "total variation",
    "student_entropy": "student entropy",
}
"""What trials log about themselves on the dev batch, and how it is called."""


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


def read_cost(done: Done) -> Cost:
    """From a trial's DONE.json."""
    return Cost(*(float(getattr(done, field.name)) for field in fields(Cost)))


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """The mean over trials, of each figure."""
    return Cost(*(float(np.mean(figures)) for figures in zip(*map(astuple, costs), strict=True)))


def cost_frame(costs: dict[str, list[Cost]]) -> pd.DataFrame:
    """One row per variant: means over its trials, and the fastest and slowest of them."""
    rows = []
    for variant, group in costs.items():
        seconds = [cost.train_seconds for cost in group]
        mean = mean_cost(group)
        low, high = min(seconds), max(seconds)
        rows.append((variant, len(group), mean.train_seconds, low, high, *astuple(mean)[1:]))
    seconds_of = [f"train_seconds{end}" for end in ("", "_min", "_max")]
    rest = [field.name for field in fields(Cost)[1:]]
    return pd.DataFrame(rows, columns=["variant", "n_seeds", *seconds_of, *rest])


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        init_seed: of the initial student it started from.
        params: resolved parameters as canonical JSON, and `lr` where it is not the suite's.
        diverged_at: the step at which it diverged, None if it did not.
        cost: what its training took.
        weights: digests of the shared models it depends on, `teacher` and `initial student`.
        dropout: the largest probability of dropout in its training; 0 for a reference.
        rooms: digest of the code of kdbench that made it.
        scores: per (set, metric), [decoding seeds, samples], both in ascending order; one decoding
            seed for greedy metrics, one sample for a metric of the whole set.
    """

    files: TrialFiles
    variant: str
    objective: str
    params: str
    seed: int
    init_seed: int
    reference: bool
    diverged: bool
    diverged_at: int | None
    cost: Cost
    scores: dict[tuple[str, str], Floats]
    weights: dict[str, str]
    dropout: float
    rooms: str

    @cached_property
    def values(self) -> dict[tuple[str, str], Floats]:
        """Per (set, metric), [samples], the mean over decoding seeds of each sample."""
        return {key: table.mean(axis=0) for key, table in self.scores.items()}

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The rows of its training log."""
        done = self.files.done
        return read_jsonl(_vouched(self.files.train_log, done)) if done else []

    def figure(self, sets: list[str], metric: str) -> float:
        """The unweighted mean over sets of the mean over samples."""
        return float(np.mean([self.values[name, metric].mean() for name in sets]))

    def decoding_sd(self, sets: list[str], metric: str) -> float:
        """Standard deviation (ddof 0) over decoding seeds of the figure of each; NaN for one.

        What most papers print after ±: it says how repeatable the sampling of one student is.
        """
        of_seed = np.mean([self.scores[name, metric].mean(axis=1) for name in sets], axis=0)
        return float(of_seed.std()) if len(of_seed) > 1 else math.nan


def finished_trials(run: Run) -> list[TrialResult]:
    """The trials that have ended and been scored, ordered by variant, seed and initial student.

    Raises:
        UserError: trials were scored on different sets, samples or metrics.
    """
    trials = [read_trial(files) for files in run.finished()]
    trials.sort(key=lambda trial: (trial.variant, trial.seed, trial.init_seed))
    shapes = [{key: len(values) for key, values in trial.values.items()} for trial in trials]
    for trial, shape in zip(trials, shapes, strict=True):
        if shape != shapes[0]:
            raise UserError(
                f"{trial.files.scores_path} and {trials[0].files.scores_path} hold different sets, "
                "samples or metrics, so they cannot stand in one table; delete both and run again"
            )
    return trials


class _Place(Protocol):
    @property
    def seed(self) -> int: ...

    @property
    def init_seed(self) -> int: ...


Placed = TypeVar("Placed", bound=_Place)


@dataclass(frozen=True)
class SeedGrid:
    """Training seeds crossed with initial students, both in ascending order."""

    seeds: tuple[int, ...]
    init_seeds: tuple[int, ...]

    def of(self, trials: Sequence[Placed]) -> list[Placed]:
        """The trials of one variant that stand in the grid, by seed and then initial student."""
        return [t for t in trials if t.seed in self.seeds and t.init_seed in self.init_seeds]

    def by_seed(self, figures: Sequence[float]) -> Floats:
        """[seeds], the mean over initial students of one figure per trial of the grid."""
        shape = len(self.seeds), max(len(self.init_seeds), 1)
        means: Floats = np.reshape(figures, shape).mean(axis=1)
        return means


def grid_of(groups: Sequence[Sequence[_Place]]) -> SeedGrid:
    """The full grid that all variants have, with as many training seeds as any student gives.

    Of initial students it holds those that every one of these seeds was trained from. Only in a
    full grid is a figure of a seed the mean over the same initial students as that of any other.
    """
    cells = [{(trial.seed, trial.init_seed) for trial in group} for group in groups]
    common = set.intersection(*cells) if cells else set()
    students = sorted({student for _, student in common})
    seeds_of = {m: tuple(sorted(seed for seed, own in common if own == m)) for m in students}
    seeds = max(seeds_of.values(), key=len, default=())
    whole = [m for m, found in seeds_of.items() if set(seeds) <= set(found)]
    return SeedGrid(seeds, tuple(whole))


def read_trial(files: TrialFiles) -> TrialResult:
    """One trial that has ended and been scored."""
    spec, done = files.spec, files.done
    assert done is not None
    return TrialResult(
        files=files,
        variant=spec.variant,
        objective=spec.objective,
        params=canonical(spec.parameters),
        seed=spec.seed,
        init_seed=spec.init_seed,
        reference=spec.reference,
        diverged=done.status == "diverged",
        diverged_at=done.diverged_at,
        cost=read_cost(done),
        scores={
            key: scores.values
            for key, scores in scores_of(
                _vouched(files.scores_path, done), str(files.scores_path)
            ).items()
        },
        weights=done.weights,
        dropout=done.dropout,
        rooms=spec.harness.rooms,
    )


def _vouched(path: Path, done: Done) -> Path:
    """A file of a finished trial, after a check against DONE.json."""
    digest = done.digests.get(path.name)
    if digest is None:
        return path
    try:
        check_file(path, digest)
    except DamagedError as error:
        again = "run the trial again" if path.suffix == ".jsonl" else "score it again"
        what = "the trial's folder" if path.suffix == ".jsonl" else "DONE.json beside it"
        raise UserError(f"{error}; delete {what}, and give the run's command to {again}") from error
    return path
