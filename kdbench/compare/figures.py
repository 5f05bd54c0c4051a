"""What one of the compared runs knows of its variants: means and their errors."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdbench.compare.sides import BoardSide, RunSide
from kdbench.report.table import AVERAGE
from kdbench.stats.intervals import Floats, satterthwaite
from kdbench.stats.two_runs import Errors, row_errors

SAMPLES = "samples"
"""What the interval of a variant with one training seed is over."""


@dataclass(frozen=True)
class Figures(ABC):
    """One side on the sets that both have."""

    sets: list[str]
    """The common evaluation sets."""

    @abstractmethod
    def count(self, variant: str) -> int:
        """The training seeds of a variant that count."""

    @abstractmethod
    def means(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants], over training seeds."""

    @abstractmethod
    def decoding_sd(self, name: str, metric: str, variant: str) -> float:
        """Over decoding seeds (ddof 0), the mean over trainings; NaN for one decoding seed."""

    @abstractmethod
    def over_seeds(self, name: str, metric: str, variants: Sequence[str]) -> tuple[Errors, str]:
        """The errors of the means over training seeds, and whether they are pooled."""

    @abstractmethod
    def over_samples(self, name: str, metric: str, variants: Sequence[str]) -> Errors:
        """The errors of the means over prompts."""

    def members(self, name: str) -> list[str]:
        """The sets of a column."""
        return self.sets if name == AVERAGE else [name]


@dataclass(frozen=True)
class RunFigures(Figures):
    """Of a run with its scores.

    Attributes:
        seeds: the training seeds that count; a reference has its own.
    """

    side: RunSide
    seeds: list[int]

    def count(self, variant: str) -> int:
        """The training seeds of a variant that count."""
        return len(self._seeds(variant))

    def table(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants, seeds]."""
        sets, trials = self.members(name), self.side.trials
        return np.array(
            [
                [trials[variant][seed].figure(sets, metric) for seed in self._seeds(variant)]
                for variant in variants
            ]
        )

    def means(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants], over training seeds."""
        means: Floats = self.table(name, metric, variants).mean(axis=1)
        return means

    def decoding_sd(self, name: str, metric: str, variant: str) -> float:
        """Over decoding seeds (ddof 0), the mean over trainings; NaN for one decoding seed."""
        trials, sets = self.side.trials[variant], self.members(name)
        return float(np.mean([trials[s].decoding_sd(sets, metric) for s in self._seeds(variant)]))

    def apart(self, variants: Sequence[str]) -> list[bool]:
        """Which variants have a diverged training: their errors are of another kind."""
        trials = self.side.trials
        return [
            any(trials[variant][seed].diverged for seed in self._seeds(variant))
            for variant in variants
        ]

    def over_seeds(self, name: str, metric: str, variants: Sequence[str]) -> tuple[Errors, str]:
        """The errors of the means over training seeds, and whether they are pooled."""
        return row_errors(self.table(name, metric, variants), self.apart(variants))

    def over_samples(self, name: str, metric: str, variants: Sequence[str]) -> Errors:
        """The errors of the means over prompts."""
        return sample_errors([self.prompts(name, metric, variant) for variant in variants])

    def prompts(self, name: str, metric: str, variant: str) -> list[Floats]:
        """One [samples] per set of a column: each sample's mean over training seeds."""
        trials, seeds = self.side.trials[variant], self._seeds(variant)
        return [
            np.mean([trials[seed].values[member, metric] for seed in seeds], axis=0)
            for member in self.members(name)
        ]

    def _seeds(self, variant: str) -> list[int]:
        return self.seeds if variant in self.side.variants else self.side.seeds([variant])


@dataclass(frozen=True)
class BoardFigures(Figures):
    """Of a published board, as far as its table tells."""

    side: BoardSide

    def count(self, variant: str) -> int:
        """The training seeds of a variant."""
        return int(
            next(row["n_seeds"] for key, row in self.side.table.items() if key[0] == variant)
        )

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

    def _column(self, key: str, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """One column of the table; NaN for an average over other sets."""
        if name == AVERAGE and set(self.sets) != set(self.side.sets):
            return np.full(len(variants), np.nan)
        table = self.side.table
        return np.array([table[variant, name, metric][key] for variant in variants], np.float64)


def figures_of(
    side: RunSide | BoardSide, variants: Sequence[str], sets: list[str]
) -> RunFigures | BoardFigures:
    """The figures of a side with all training seeds that the variants have in common."""
    if isinstance(side, BoardSide):
        return BoardFigures(sets, side)
    return RunFigures(sets, side, side.seeds(variants) if variants else [])


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
