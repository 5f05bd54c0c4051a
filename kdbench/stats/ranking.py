"""How the variants are ordered: ranks, probability of improvement, performance profiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kdbench.stats.bootstrap import Resampled, percentile
from kdbench.stats.intervals import Floats

_DECIMALS = 9
"""Two variants that are one function differ by rounding alone; to this they are equal."""


@dataclass(frozen=True)
class Ranks:
    """How often each variant takes each rank.

    Attributes:
        share: [k, k], of variant i at rank j + 1; rows and columns sum to 1.
        mean: [k], mean rank; 1 is best.
        low: [k], lower 95 % percentile limit of the rank.
        high: [k], upper limit.
    """

    share: Floats
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Limits:
    """An estimate with its limits, of any shape."""

    estimate: Floats
    low: Floats
    high: Floats


def ranks(figures: ArrayLike) -> Ranks:
    """The distribution of ranks over draws, higher figures first; ties share their ranks equally.

    Args:
        figures: [draws, k].
    """
    rounded = _rounded(figures)
    ahead = (rounded[:, None, :] > rounded[:, :, None]).sum(-1)
    tied = (rounded[:, None, :] == rounded[:, :, None]).sum(-1)
    places = np.arange(rounded.shape[1])
    share = np.array([((ahead <= place) & (place < ahead + tied)) / tied for place in places]).mean(
        axis=1
    )
    rank = ahead + (tied + 1) / 2
    low, high = percentile(rank)
    return Ranks(share.T, rank.mean(axis=0), low, high)


def probability_of_improvement(strata: Sequence[ArrayLike], resampled: Resampled) -> Limits:
    """P(a training of one variant scores above a training of another), averaged over sets.

    The share of all pairs of seeds, ties counted half (Mann and Whitney 1947; Agarwal et al. 2021,
    arXiv:2108.13264, sec. 4.3), with percentile limits of the hierarchical bootstrap.

    Args:
        strata: one [k, seeds, samples] per set.
        resampled: draws of the same tables.

    Returns:
        [k, k], row over column; the diagonal is one half.
    """
    figures = [np.asarray(table).mean(axis=-1)[None] for table in strata]
    even = np.full((1, figures[0].shape[-1]), 1 / figures[0].shape[-1])
    estimate = np.mean([_above(values, even) for values in figures], axis=0)[0]
    drawn = np.mean([_above(values, resampled.weights) for values in resampled.values], axis=0)
    return Limits(estimate, *percentile(drawn))


def win_rate(strata: Sequence[ArrayLike]) -> Floats:
    """Share of prompts, within each seed, that one variant answers better than another.

    Args:
        strata: one [k, seeds, samples] per set.

    Returns:
        [k, k], row over column, ties half, averaged over seeds and then over sets.
    """
    tables = [_rounded(table) for table in strata]
    won = [[_half_ties(row[None], table).mean(axis=(1, 2)) for row in table] for table in tables]
    averaged: Floats = np.mean(won, axis=0)
    return averaged


def performance_profile(
    strata: Sequence[ArrayLike], resampled: Resampled, levels: ArrayLike
) -> Limits:
    """Share of (set, seed) figures above each level, with percentile limits of the bootstrap.

    The run-score distribution of Agarwal et al. 2021 (arXiv:2108.13264, sec. 4.2): one variant's
    profile above another's everywhere is an order that depends on no choice of average.

    Args:
        strata: one [k, seeds, samples] per set, on one scale.
        resampled: draws of the same tables.
        levels: [t].

    Returns:
        [k, t].
    """
    levels = np.asarray(levels, dtype=np.float64)
    figures = [np.asarray(table).mean(axis=-1) for table in strata]
    estimate = np.mean([(values[..., None] > levels).mean(axis=1) for values in figures], axis=0)
    drawn = np.stack(
        [
            np.mean(
                [((v > level) @ resampled.weights[..., None])[..., 0] for v in resampled.values],
                axis=0,
            )
            for level in levels
        ],
        axis=-1,
    )
    return Limits(estimate, *percentile(drawn))


def _above(values: Floats, weights: Floats) -> Floats:
    """[draws, k, k] from [draws, k, seeds], over all pairs of seeds by their weights."""
    rounded = _rounded(values)
    draws, k, _ = values.shape
    pairs = (weights[:, :, None] * weights[:, None, :]).reshape(draws, -1, 1)
    result = np.full((draws, k, k), 0.5)
    for row in range(k - 1):
        below = rounded[:, row + 1 :, None, :]
        better = _half_ties(rounded[:, row, None, :, None], below).reshape(draws, k - row - 1, -1)
        result[:, row, row + 1 :] = (better @ pairs)[..., 0]
        result[:, row + 1 :, row] = 1 - result[:, row, row + 1 :]
    return result


def _half_ties(a: Floats, b: Floats) -> Floats:
    """One where a is above b, a half where they are equal, else zero."""
    won: Floats = 0.5 + 0.5 * np.sign(a - b)
    return won


def _rounded(values: ArrayLike) -> Floats:
    return np.asarray(np.round(np.asarray(values), _DECIMALS), dtype=np.float64)
