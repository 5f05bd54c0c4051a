"""The runs that are compared: what their folders hold, and the errors of their figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from kdbench.base.errors import UserError
from kdbench.base.registry import REFERENCES
from kdbench.config.identity import Shared, canonical
from kdbench.config.schema import DEV
from kdbench.report.frames import BoardFrames, frames_of
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult, finished_trials
from kdbench.stats.intervals import Floats, satterthwaite
from kdbench.stats.two_runs import Errors, row_errors

FACTS = (
    "commit",
    "dirty",
    "versions",
    "python",
    "hardware",
    "jobs",
    "threads",
    "micro_batch",
    "compile",
)
"""What of provenance.json is compared beside the weights: all but the command and the clock."""


@dataclass(frozen=True)
class Side:
    """One of the runs compared.

    Attributes:
        name: of the folder.
        rows: what its table has rows of: variants and references.
        columns: the (set, metric) that were scored, without dev and the average.
        sets: the evaluation sets that are compared; all that were scored where nobody chose.
    """

    name: str
    run: Run
    rows: list[str]
    columns: list[tuple[str, str]]
    sets: list[str]

    @cached_property
    def shared(self) -> Shared:
        """What all its trials have in common."""
        return self.run.spec.shared

    @property
    def scored(self) -> list[str]:
        """The evaluation sets that were scored."""
        return _sets_of(self.columns)

    @property
    def variants(self) -> list[str]:
        """The variants, without the references."""
        return [name for name in self.rows if name not in REFERENCES]

    @property
    def references(self) -> list[str]:
        """The references that were scored."""
        return [name for name in REFERENCES if name in self.rows]

    def members(self, name: str) -> list[str]:
        """The sets of a column."""
        return self.sets if name == AVERAGE else [name]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What provenance.json says of the machine and the code; a list where commands differ."""
        commands = self.run.provenance.commands
        found: dict[str, Any] = {
            key: _one_or_all([entry[key] for entry in commands if entry.get(key) not in (None, {})])
            for key in FACTS
        }
        # A command that was stopped, or that had fewer initial students, knows fewer digests.
        given = [entry.get("weights") or {} for entry in commands]
        models = dict.fromkeys(name for digests in given for name in digests)
        found["weights"] = {
            name: _one_or_all([digests[name] for digests in given if name in digests])
            for name in models
        }
        return found


@dataclass(frozen=True)
class RunSide(Side):
    """A run with its scores.

    Attributes:
        trials: finished trials by variant and training seed, of the first initial student.
        open_trials: that were started and have no scores.
        seeds: the training seeds that count, see `on`; a reference has its own.
    """

    trials: dict[str, dict[int, TrialResult]]
    open_trials: int
    seeds: list[int] = field(default_factory=list)

    def on(self, sets: list[str], variants: Sequence[str]) -> "RunSide":
        """The run on some sets, with all training seeds that these variants have in common."""
        common = set.intersection(*(set(self.trials[name]) for name in variants or self.rows))
        return replace(self, sets=sets, seeds=sorted(common))

    def definition(self, variant: str) -> dict[str, Any]:
        """Its parameters, the source of its sequences, and the digest of its code."""
        return next(iter(self.trials[variant].values())).files.spec.definition

    def n_prompts(self, name: str) -> int:
        """How many prompts of a set were asked."""
        trial = next(iter(self.trials[self.rows[0]].values()))
        return len(trial.values[name, "rouge_l"])

    def counted(self, variant: str) -> list[TrialResult]:
        """The trials of a variant that count, by training seed."""
        trials = self.trials[variant]
        return [trials[seed] for seed in (self.seeds if variant in self.variants else trials)]

    def count(self, variant: str) -> int:
        """How many training seeds of a variant count."""
        return len(self.counted(variant))

    def table(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants, seeds], of a set or the average of the sets."""
        sets = self.members(name)
        return np.array(
            [[trial.figure(sets, metric) for trial in self.counted(one)] for one in variants]
        )

    def means(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants], over training seeds."""
        means: Floats = self.table(name, metric, variants).mean(axis=1)
        return means

    def decoding_sd(self, name: str, metric: str, variant: str) -> float:
        """Over decoding seeds (ddof 0), the mean over trainings; NaN for one decoding seed."""
        sets = self.members(name)
        return float(np.mean([t.decoding_sd(sets, metric) for t in self.counted(variant)]))

    def apart(self, variants: Sequence[str]) -> list[bool]:
        """Which variants have a diverged training: their errors are of another kind."""
        return [any(trial.diverged for trial in self.counted(variant)) for variant in variants]

    def over_seeds(self, name: str, metric: str, variants: Sequence[str]) -> tuple[Errors, str]:
        """The errors of the means over training seeds, "pooled" or "separate"."""
        return row_errors(self.table(name, metric, variants), self.apart(variants))

    def over_samples(self, name: str, metric: str, variants: Sequence[str]) -> Errors:
        """The errors of the means over prompts."""
        return sample_errors([self.by_prompt(name, metric, variant) for variant in variants])

    def by_prompt(self, name: str, metric: str, variant: str) -> list[Floats]:
        """One [samples] per set of a column: each sample's mean over training seeds."""
        trials = self.counted(variant)
        return [
            np.mean([trial.values[member, metric] for trial in trials], axis=0)
            for member in self.members(name)
        ]


@dataclass(frozen=True)
class BoardSide(Side):
    """A published board, as far as its tables tell.

    Attributes:
        table: its leaderboard by (variant, set, metric).
    """

    table: dict[tuple[str, str, str], dict[str, Any]]

    def on(self, sets: list[str], variants: Sequence[str]) -> "BoardSide":
        """The board on some sets."""
        return replace(self, sets=sets)

    def definition(self, variant: str) -> dict[str, Any]:
        """Its parameters."""
        return {"params": json.loads(self._first(0, variant)["params"])}

    def n_prompts(self, name: str) -> int:
        """How many prompts of a set were asked."""
        return int(self._first(1, name)["n_samples"])

    def count(self, variant: str) -> int:
        """The training seeds of a variant."""
        return int(self._first(0, variant)["n_seeds"])

    def means(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants], over training seeds; the board's own average may be over more sets."""
        columns = [self._column("mean", one, metric, variants) for one in self.members(name)]
        means: Floats = np.mean(columns, axis=0)
        return means

    def decoding_sd(self, name: str, metric: str, variant: str) -> float:
        """Over decoding seeds (ddof 0), the mean over trainings; NaN for one decoding seed."""
        return float(self._column("sd_decoding", name, metric, [variant])[0])

    def over_seeds(self, name: str, metric: str, variants: Sequence[str]) -> tuple[Errors, str]:
        """The errors of the means over training seeds, which are not pooled."""
        n = self._column("n_seeds", name, metric, variants)
        deviation = self._column("sd_train", name, metric, variants)
        return Errors(deviation**2 / n, n - 1), "separate"

    def over_samples(self, name: str, metric: str, variants: Sequence[str]) -> Errors:
        """The errors of the means over prompts, known for variants with one training seed."""
        low, high, n = (
            self._column(key, name, metric, variants) for key in ("ci_low", "ci_high", "n_samples")
        )
        error = (high - low) / 2 / stats.t.ppf(0.975, n - 1)
        single = self._column("n_seeds", name, metric, variants) == 1
        return Errors(np.where(single, error**2, np.nan), n - 1)

    def _first(self, place: int, name: str) -> dict[str, Any]:
        return next(row for key, row in self.table.items() if key[place] == name)

    def _column(self, key: str, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """One column of the table; NaN for an average over other sets."""
        if name == AVERAGE and set(self.sets) != set(self.scored):
            return np.full(len(variants), np.nan)
        table = self.table
        return np.array([table[variant, name, metric][key] for variant in variants], np.float64)


AnySide: TypeAlias = RunSide | BoardSide


def read_side(run: Run, name: str) -> AnySide:
    """Reads a run, or the tables of a published board.

    Raises:
        UserError: nothing is finished, or the folder holds neither trials nor a leaderboard.
    """
    frames = frames_of(run)
    if isinstance(frames, BoardFrames):
        records = frames.leaderboard.astype(object).to_dict("records")
        table = {
            (str(row["variant"]), str(row["set"]), str(row["metric"])): {
                str(key): value for key, value in row.items()
            }
            for row in records
        }
        if not table:
            raise UserError(f"{run.path}/leaderboard.csv: an empty table")
        rows = list(dict.fromkeys(variant for variant, _, _ in table))
        columns = list(dict.fromkeys(key[1:] for key in table if key[1] != AVERAGE))
        return BoardSide(name, run, rows, columns, _sets_of(columns), table)
    trials: dict[str, dict[int, TrialResult]] = {}
    started = sum(files.spec.init_seed == 0 for files in run.trials())
    for trial in finished_trials(run):
        if not trial.init_seed:
            trials.setdefault(trial.variant, {})[trial.seed] = trial
    if not trials:
        raise UserError(f"{run.path}: no finished trial to compare; run it first")
    finished = [trial for own in trials.values() for trial in own.values()]
    columns = [key for key in finished[0].scores if key[0] != DEV]
    left = started - len(finished)
    return RunSide(name, run, list(trials), columns, _sets_of(columns), trials, left)


def sample_errors(rows: Sequence[Sequence[Floats]]) -> Errors:
    """The errors of rows' means over the samples of their sets, with Welch's degrees of freedom.

    Args:
        rows: per row, one [samples] per set; NaN where a set has one sample.
    """
    squared, df = [], []
    for tables in rows:
        sizes = np.array([len(table) for table in tables])
        known = sizes.min() > 1
        parts = [table.var(ddof=1) / len(table) / len(tables) ** 2 for table in tables if known]
        squared.append(float(np.sum(parts)) if known else np.nan)
        df.append(float(satterthwaite(parts, sizes - 1)) if known else np.nan)
    return Errors(np.array(squared), np.array(df))


def _sets_of(columns: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for name, _ in columns))


def _one_or_all(values: Sequence[Any]) -> Any:
    """The value that all have, a list of the different ones, or None where there is none."""
    different = list({canonical(value): value for value in values}.values())
    return different[0] if len(different) == 1 else different or None
