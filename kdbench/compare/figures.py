"""What one of the compared runs knows of its variants: means and their errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdbench.compare.sides import Side
from kdbench.report.table import AVERAGE
from kdbench.stats.intervals import Floats, satterthwaite
from kdbench.stats.two_runs import Errors, row_errors

SAMPLES = "samples"
"""What the interval of a variant with one training seed is over."""


@dataclass(frozen=True)
class Figures:
    """One run on the sets that both runs have.

    Attributes:
        seeds: the training seeds that count; [] for a board. A reference has its own.
        sets: the common evaluation sets.
    """

    side: Side
    seeds: list[int]
    sets: list[str]

    def members(self, name: str) -> list[str]:
        """The sets of a column."""
        return self.sets if name == AVERAGE else [name]

    def count(self, variant: str) -> int:
        """The training seeds of a variant that count."""
        if self.side.is_board:
            return int(
                next(row["n_seeds"] for key, row in self.side.rows.items() if key[0] == variant)
            )
        return len(self._seeds(variant))

    def table(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants, seeds]; of a run, not of a board."""
        sets, trials = self.members(name), self.side.trials
        return np.array(
            [
                [trials[variant][seed].figure(sets, metric) for seed in self._seeds(variant)]
                for variant in variants
            ]
        )

    def means(self, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """[variants], over training seeds."""
        means: Floats
        if self.side.is_board:  # whose own average may be over more sets than these
            columns = [self._column("mean", one, metric, variants) for one in self.members(name)]
            means = np.mean(columns, axis=0)
        else:
            means = self.table(name, metric, variants).mean(axis=1)
        return means

    def decoding_sd(self, name: str, metric: str, variant: str) -> float:
        """Over decoding seeds (ddof 0), the mean over trainings; NaN for one, or if not known."""
        if self.side.is_board:
            return float(self._column("sd_decoding", name, metric, [variant])[0])
        trials, sets = self.side.trials[variant], self.members(name)
        return float(np.mean([trials[s].decoding_sd(sets, metric) for s in self._seeds(variant)]))

    def apart(self, variants: Sequence[str]) -> list[bool]:
        """Whether a training of the variant diverged; its errors are then of another kind."""
        trials = self.side.trials
        return [
            any(trials[variant][seed].diverged for seed in self._seeds(variant))
            for variant in variants
        ]

    def over_seeds(self, name: str, metric: str, variants: Sequence[str]) -> tuple[Errors, str]:
        """The errors of the means over training seeds, and whether they are pooled."""
        if not self.side.is_board:
            return row_errors(self.table(name, metric, variants), self.apart(variants))
        n = self._column("n_seeds", name, metric, variants)
        deviation = self._column("sd_train", name, metric, variants)
        return Errors(deviation**2 / n, n - 1), "separate"

    def over_samples(self, name: str, metric: str, variants: Sequence[str]) -> Errors:
        """The errors of the means over prompts; of a board, known for variants with one seed."""
        if not self.side.is_board:
            return sample_errors([self.prompts(name, metric, variant) for variant in variants])
        low, high, n = (
            self._column(key, name, metric, variants) for key in ("ci_low", "ci_high", "n_samples")
        )
        error = (high - low) / 2 / stats.t.ppf(0.975, n - 1)
        single = self._column("n_seeds", name, metric, variants) == 1
        return Errors(np.where(single, error**2, np.nan), n - 1)

    def prompts(self, name: str, metric: str, variant: str) -> list[Floats]:
        """One [samples] per set of a column: each sample's mean over training seeds."""
        return [table.mean(axis=0) for table in self._scores(name, metric, variant)]

    def _seeds(self, variant: str) -> list[int]:
        return self.seeds if variant in self.side.variants else self.side.seeds([variant])

    def _scores(self, name: str, metric: str, variant: str) -> list[Floats]:
        trials = self.side.trials[variant]
        return [
            np.array([trials[seed].values[member, metric] for seed in self._seeds(variant)])
            for member in self.members(name)
        ]

    def _column(self, key: str, name: str, metric: str, variants: Sequence[str]) -> Floats:
        """Of a board; NaN for an average over other sets, and for what older boards lack."""
        if name == AVERAGE and set(self.sets) != set(self.side.sets):
            return np.full(len(variants), np.nan)
        rows = self.side.rows
        found = [rows[variant, name, metric].get(key, np.nan) for variant in variants]
        return np.array(found, np.float64)


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
