"""The columns of a comparison of two runs: differences, their noise, and rank agreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdbench.compare.figures import SAMPLES, BoardFigures, RunFigures, sample_errors
from kdbench.compare.pairing import Pairing
from kdbench.compare.sides import RunSide
from kdbench.report.table import AVERAGE
from kdbench.runs.scores import METRICS
from kdbench.stats.intervals import Floats, Interval, over_samples
from kdbench.stats.paired import sign_flip_p, smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL, holm_list
from kdbench.stats.two_runs import Errors, difference, kendall_tau, row_errors

SEEDS, BOTH = "training seeds", "training seeds and samples"
"""What an interval is over, besides samples."""


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
    """Two runs on the sets that both have."""

    first: RunFigures | BoardFigures
    other: RunFigures | BoardFigures
    pairing: Pairing

    @property
    def runs(self) -> tuple[RunFigures, RunFigures] | None:
        """Both, where there are scores of both; None where one is a board."""
        if isinstance(self.first, BoardFigures) or isinstance(self.other, BoardFigures):
            return None
        return self.first, self.other

    def keys(self) -> list[tuple[str, str]]:
        """(set, metric): the average of the common sets, unless a board's is over others."""
        sets, sides = self.first.sets, (self.first.side, self.other.side)
        found = set(sides[0].columns) & set(sides[1].columns)
        metrics = [name for name in METRICS if all((one, name) in found for one in sets)]
        same = all(isinstance(side, RunSide) or set(side.sets) == set(sets) for side in sides)
        return [(name, metric) for name in ([AVERAGE] * same + sets) for metric in metrics]

    def rows(self, name: str, metric: str, variants: Sequence[str]) -> list[dict[str, Any]]:
        """One row per variant.

        Args:
            name: a set, or `average`.
            metric: of the scores.
            variants: one family of Holm's correction; a reference stands alone and has none.
        """
        column = name, metric
        means = [figures.means(*column, variants) for figures in (self.first, self.other)]
        noise = self._noise(*column, variants)
        found = difference(means[1] - means[0], noise.errors)
        adjusted, known = np.full(len(variants), np.nan), ~np.isnan(found.p)
        if variants[0] in self.first.side.variants:
            adjusted[known] = holm_list(found.p[known])
        flips, least = np.full(len(variants), np.nan), np.nan
        if noise.by_seed is not None:
            flips = sign_flip_p(noise.by_seed)
            least = smallest_sign_flip_p(noise.by_seed.shape[1])
        rows = []
        for index, variant in enumerate(variants):
            prompts = self._over_prompts(*column, variant)
            p_holm = float(adjusted[index])
            rows.append(
                {
                    "set": name,
                    "metric": metric,
                    "variant": variant,
                    "mean_first": means[0][index],
                    "mean_other": means[1][index],
                    "difference": found.mean[index],
                    "ci_low": found.low[index],
                    "ci_high": found.high[index],
                    "p": found.p[index],
                    "p_holm": p_holm,
                    "beyond_noise": p_holm < LEVEL if np.isfinite(p_holm) else None,
                    "p_sign_flip": flips[index],
                    "smallest_p_sign_flip": least,
                    "prompts_low": prompts.low,
                    "prompts_high": prompts.high,
                    "pairing": noise.pairing,
                    "interval": noise.interval,
                    "model": noise.model,
                    "n_seeds_first": self.first.count(variant),
                    "n_seeds_other": self.other.count(variant),
                }
            )
        return rows

    def identical(self, variant: str) -> bool:
        """Whether the common seeds' scores (of a board, all means) are equal to the last bit."""
        keys = self.keys()
        if self.runs is None:
            first, other = (
                [figures.count(variant), *(figures.means(*key, [variant])[0] for key in keys)]
                for figures in (self.first, self.other)
            )
            return bool(np.allclose(first, other, rtol=1e-14, atol=0))
        old, new = (figures.side.trials[variant] for figures in self.runs)
        twins = [(trial.scores, new[seed].scores) for seed, trial in old.items() if seed in new]
        return bool(twins) and all(
            np.array_equal(one[key], two[key])
            for one, two in twins
            for key in keys
            if key[0] != AVERAGE
        )

    def agreement(self, name: str, metric: str, variants: Sequence[str]) -> Interval:
        """Kendall's tau of the variants' means."""
        column = name, metric, variants
        return kendall_tau(self.first.means(*column), self.other.means(*column))

    def same_prompts(self, name: str) -> bool:
        """Whether both runs asked the same prompts in a column."""
        return all(self.pairing.samples[member] for member in self.first.members(name))

    def _noise(self, name: str, metric: str, variants: Sequence[str]) -> Noise:
        column, sides, runs = (name, metric, variants), (self.first, self.other), self.runs
        same = self.same_prompts(name)
        several = all(figures.count(variant) > 1 for figures in sides for variant in variants)
        if same and several and runs and not self.pairing.unseeded:
            old, new = runs
            by_seed = new.table(*column) - old.table(*column)
            diverged = zip(old.apart(variants), new.apart(variants), strict=True)
            errors, model = row_errors(by_seed, list(map(any, diverged)))
            return Noise([errors], "seed", SEEDS, model, by_seed)
        if same and not several and runs:
            strata = [_differences(runs, name, metric, variant) for variant in variants]
            return Noise([sample_errors(strata)], "sample", SAMPLES)
        if not several:
            return Noise([figures.over_samples(*column) for figures in sides], "none", SAMPLES)
        found = [figures.over_seeds(*column) for figures in sides]
        errors_of_both = [errors for errors, _ in found]
        model = "pooled" if all(model == "pooled" for _, model in found) else "separate"
        if same:
            return Noise(errors_of_both, "sample", SEEDS, model)
        # Other prompts add their noise; the tables of a board do not hold it: NaN.
        errors_of_both += [figures.over_samples(*column) for figures in sides]
        return Noise(errors_of_both, "none", BOTH if runs else "", model)

    def _over_prompts(self, name: str, metric: str, variant: str) -> Interval:
        """The interval of a difference over the prompts that both runs asked."""
        if self.runs is None or not self.same_prompts(name):
            return Interval(np.nan, np.nan, np.nan)
        return over_samples(_differences(self.runs, name, metric, variant))


def _differences(
    runs: tuple[RunFigures, RunFigures], name: str, metric: str, variant: str
) -> list[Floats]:
    """One [samples] per set, each sample's difference of means over training seeds."""
    old, new = (figures.prompts(name, metric, variant) for figures in runs)
    return [b - a for a, b in zip(old, new, strict=True)]
