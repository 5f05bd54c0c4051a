"""Hierarchical bootstrap: training seeds and initial students are drawn, then prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kdbench.stats.intervals import Floats

DRAWS = 2_000


@dataclass(frozen=True)
class Resampled:
    """Bootstrap draws of a table of variants by trainings by samples, for one or several sets.

    A training is a training seed, or one of them with one of several initial students.

    Attributes:
        values: one [draws, k, trainings] per set, the mean over the samples of each draw.
        weights: [draws, trainings], how often each was drawn, over their number.
    """

    values: list[Floats]
    weights: Floats

    def means(self) -> Floats:
        """[draws, k], the unweighted mean over sets of the mean over the drawn trainings."""
        average = np.mean(self.values, axis=0)
        drawn: Floats = np.einsum("dks,ds->dk", average, self.weights)
        return drawn


def resample(
    strata: Sequence[ArrayLike], generator: np.random.Generator, draws: int = DRAWS
) -> Resampled:
    """Draws training seeds, initial students and, for each set, prompts, all with replacement.

    All variants share the draws, so that their comparison stays paired. All seeds answered the same
    prompts, so they share the drawn prompts too (Owen 2007, the pigeonhole bootstrap): drawing
    prompts anew for each seed would treat the prompts' difficulty as noise that more seeds average
    away. The same holds for the initial students, which were crossed with the seeds. Of what there
    is one, nothing varies.

    Args:
        strata: one [k, seeds, samples] or [k, seeds, initial students, samples] per set.
        generator: its only source of randomness.
        draws: how many.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in strata]
    weights = np.ones((draws, 1))
    for levels in tables[0].shape[1:-1]:
        drawn = _weights(levels, draws, generator)
        weights = (weights[:, :, None] * drawn[:, None, :]).reshape(draws, -1)
    values = [
        np.einsum("ktn,dn->dkt", table, _weights(table.shape[2], draws, generator), optimize=True)
        for table in (table.reshape(len(table), -1, table.shape[-1]) for table in tables)
    ]
    return Resampled(values, weights)


def percentile(draws: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile limits over the first axis.

    With few seeds they are too narrow: docs/statistics.md has the measured coverage.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _weights(n: int, draws: int, generator: np.random.Generator) -> Floats:
    counts: Floats = generator.multinomial(n, np.full(n, 1 / n), size=draws) / n
    return counts
