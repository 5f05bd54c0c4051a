"""Hierarchical bootstrap: training seeds are drawn, then prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kdbench.stats.intervals import Floats, Interval

DRAWS = 2_000


@dataclass(frozen=True)
class Resampled:
    """Bootstrap draws of a table of variants by seeds by samples, for one or several sets.

    Attributes:
        values: one [draws, k, seeds] per set, the mean over the samples of each draw.
        weights: [draws, seeds], how often each seed was drawn, over the number of seeds.
    """

    values: list[Floats]
    weights: Floats

    def means(self) -> Floats:
        """[draws, k], the unweighted mean over sets of the mean over the drawn seeds."""
        average = np.mean(self.values, axis=0)
        drawn: Floats = np.einsum("dks,ds->dk", average, self.weights)
        return drawn


def resample(
    strata: Sequence[ArrayLike], generator: np.random.Generator, draws: int = DRAWS
) -> Resampled:
    """Draws training seeds and, for each set, prompts, both with replacement.

    All variants share the draws, so that their comparison stays paired. All seeds answered the same
    prompts, so they share the drawn prompts too (Owen 2007, the pigeonhole bootstrap): drawing
    prompts anew for each seed would treat the prompts' difficulty as noise that more seeds average
    away. With one seed only the prompts vary.

    Args:
        strata: one [k, seeds, samples] per set.
        generator: its only source of randomness.
        draws: how many.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in strata]
    seeds = tables[0].shape[1]
    weights = _weights(seeds, draws, generator)
    values = [
        np.einsum("ksn,dn->dks", table, _weights(table.shape[2], draws, generator), optimize=True)
        for table in tables
    ]
    return Resampled(values, weights)


def percentile(draws: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile limits over the first axis.

    With few seeds they are too narrow: docs/statistics.md has the measured coverage.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def over_seeds_and_samples(
    strata: Sequence[ArrayLike], generator: np.random.Generator, level: float = 0.95
) -> list[Interval]:
    """The hierarchical bootstrap's percentile interval of each variant's average.

    Args:
        strata: one [k, seeds, samples] per set.
        generator: its only source of randomness.
        level: the claimed coverage.
    """
    means = np.mean([np.asarray(table).mean(axis=(1, 2)) for table in strata], axis=0)
    low, high = percentile(resample(strata, generator).means(), level)
    return [Interval(*map(float, limits)) for limits in zip(means, low, high, strict=True)]


def _weights(n: int, draws: int, generator: np.random.Generator) -> Floats:
    counts: Floats = generator.multinomial(n, np.full(n, 1 / n), size=draws) / n
    return counts
