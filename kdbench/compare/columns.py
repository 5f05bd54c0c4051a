"""The columns of a comparison of two runs: differences, their noise, and rank agreement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdbench.compare.sides import AnySide, BoardSide, RunSide, sample_errors
from kdbench.report.table import AVERAGE
from kdbench.runs.scores import METRICS
from kdbench.stats.intervals import Floats, Interval, over_samples
from kdbench.stats.paired import sign_flip_p, smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL, holm_list
from kdbench.stats.two_runs import Errors, difference, row_errors

SAMPLES, SEEDS, BOTH = "samples", "training seeds", "training seeds and samples"
"""What an interval is over."""


@dataclass(frozen=True)
class Noise:
    """The errors of a column's differences, and how they were found.

    Attributes:
        errors: of paired differences one, else of each run one or two.
        pairing: "seed", "sample" or "none".
        interval: what the errors are over; "" where they are not known.
        model: "pooled" or "separate"; "" for errors over samples.
        by_seed: [k, seeds], the paired differences; None where seeds are not paired.
    """

    errors: list[Errors]
    pairing: str
    interval: str
    model: str = ""
    by_seed: Floats | None = None


@dataclass(frozen=True)
class Columns:
    """Two runs on the sets that both have.

    Attributes:
        same_prompts: per set, whether both runs asked the same prompts.
        unseeded: why training seeds cannot be paired; "" where they can.
    """

    first: AnySide
    other: AnySide
    same_prompts: dict[str, bool]
    unseeded: str

    @property
    def runs(self) -> tuple[RunSide, RunSide] | None:
        """Both, where there are scores of both; None where one is a board."""
        if isinstance(self.first, BoardSide) or isinstance(self.other, BoardSide):
            return None
        return self.first, self.other

    def keys(self) -> list[tuple[str, str]]:
        """(set, metric): the average of the common sets, unless a board's is over others."""
        sets, sides = self.first.sets, (self.first, self.other)
        found = set(self.first.columns) & set(self.other.columns)
        metrics = [name for name in METRICS if all((one, name) in found for one in sets)]
        same = all(isinstance(side, RunSide) or set(side.scored) == set(sets) for side in sides)
        return [(name, metric) for name in ([AVERAGE] * same + sets) for metric in metrics]

    def column(self, name: str, metric: str, variants: Sequence[str]) -> pd.DataFrame:
        """One row per variant.

        Args:
            name: a set, or `average`.
            metric: of the scores.
            variants: one family of Holm's correction; a reference stands alone and has none.
        """
        key = name, metric
        means = [side.means(*key, variants) for side in (self.first, self.other)]
        noise = self._noise(*key, variants)
        found = difference(means[1] - means[0], noise.errors)
        adjusted, known = np.full(len(variants), np.nan), ~np.isnan(found.p)
        if variants[0] in self.first.variants:
            adjusted[known] = holm_list(found.p[known])
        beyond = [None if math.isnan(p) else p < LEVEL for p in adjusted.tolist()]
        by_seed = noise.by_seed
        prompts = [self._over_prompts(*key, variant) for variant in variants]
        return pd.DataFrame(
            {
                "first": self.first.name,
                "other": self.other.name,
                "set": name,
                "metric": metric,
                "variant": variants,
                "mean_first": means[0],
                "mean_other": means[1],
                "difference": found.mean,
                "ci_low": found.low,
                "ci_high": found.high,
                "p": found.p,
                "p_holm": adjusted,
                "beyond_noise": pd.Series(beyond, dtype=object),
                "p_sign_flip": np.nan if by_seed is None else sign_flip_p(by_seed),
                "smallest_p_sign_flip": np.nan
                if by_seed is None
                else smallest_sign_flip_p(by_seed.shape[1]),
                "prompts_low": [interval.low for interval in prompts],
                "prompts_high": [interval.high for interval in prompts],
                "pairing": noise.pairing,
                "interval": noise.interval,
                "model": noise.model,
                "n_seeds_first": [self.first.count(variant) for variant in variants],
                "n_seeds_other": [self.other.count(variant) for variant in variants],
            }
        )

    def is_identical(self, variant: str) -> bool:
        """True if the common seeds' scores (of a board, all means) are equal to the last bit."""
        keys = self.keys()
        if self.runs is None:
            first, other = (
                [side.count(variant), *(side.means(*key, [variant])[0] for key in keys)]
                for side in (self.first, self.other)
            )
            return bool(np.allclose(first, other, rtol=1e-14, atol=0))
        old, new = (side.trials[variant] for side in self.runs)
        return not old.keys().isdisjoint(new) and all(
            np.array_equal(old[seed].scores[key], new[seed].scores[key])
            for seed in old.keys() & new.keys()
            for key in keys
            if key[0] != AVERAGE
        )

    def asked_alike(self, name: str) -> bool:
        """True if both runs asked the same prompts in a column."""
        return all(self.same_prompts[member] for member in self.first.members(name))

    def _noise(self, name: str, metric: str, variants: Sequence[str]) -> Noise:
        column, sides, runs = (name, metric, variants), (self.first, self.other), self.runs
        same = self.asked_alike(name)
        several = all(side.count(variant) > 1 for side in sides for variant in variants)
        if same and several and runs and not self.unseeded:
            old, new = runs
            by_seed = new.table(*column) - old.table(*column)
            diverged = zip(old.apart(variants), new.apart(variants), strict=True)
            errors, model = row_errors(by_seed, list(map(any, diverged)))
            return Noise([errors], "seed", SEEDS, model, by_seed)
        if same and not several and runs:
            strata = [_differences(runs, name, metric, variant) for variant in variants]
            return Noise([sample_errors(strata)], "sample", SAMPLES)
        over_prompts = [side.over_samples(*column) for side in sides]
        if not several:
            return Noise(over_prompts, "none", SAMPLES)
        found = [side.over_seeds(*column) for side in sides]
        over_trainings = [errors for errors, _ in found]
        model = "pooled" if all(model == "pooled" for _, model in found) else "separate"
        if same:
            return Noise(over_trainings, "sample", SEEDS, model)
        # Other prompts add their noise; the tables of a board do not hold it: NaN.
        return Noise([*over_trainings, *over_prompts], "none", BOTH if runs else "", model)

    def _over_prompts(self, name: str, metric: str, variant: str) -> Interval:
        """The interval of a difference over the prompts that both runs asked."""
        if self.runs is None or not self.asked_alike(name):
            return Interval(np.nan, np.nan, np.nan)
        return over_samples(_differences(self.runs, name, metric, variant))


def _differences(
    runs: tuple[RunSide, RunSide], name: str, metric: str, variant: str
) -> list[Floats]:
    """One [samples] per set, each sample's difference of means over training seeds."""
    old, new = (side.by_prompt(name, metric, variant) for side in runs)
    return [b - a for a, b in zip(old, new, strict=True)]
