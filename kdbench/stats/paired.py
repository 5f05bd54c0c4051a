"""Paired comparisons beyond the tiers: over prompts, exact over seeds, and in units of noise."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from kdbench.stats.intervals import Floats, satterthwaite

MOST_SEEDS = 12
"""Beyond this an exact test would list more than 4096 sign patterns, and adds nothing to t."""


def sign_flip_p(differences: ArrayLike) -> Floats:
    """Exact two-sided sign-flip test of a mean difference of zero (Fisher 1935).

    The share of all 2^n sign patterns whose mean is at least as far from zero as the observed. It
    assumes only that each difference is symmetric about zero if the variants are equal. It can
    never be below 2 / 2^n (`smallest_sign_flip_p`): three seeds cannot give less than .25.

    Args:
        differences: [..., n], one per training seed.

    Returns:
        [...]; NaN for one seed and for more than 12.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = values.shape[-1]
    if not 1 < n <= MOST_SEEDS:
        return np.full(values.shape[:-1], np.nan)
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    flipped = np.abs(values @ signs.T)
    observed = np.abs(values.sum(axis=-1, keepdims=True))
    tolerance = 1e-12 * np.abs(values).sum(axis=-1, keepdims=True)
    share: Floats = (flipped >= observed - tolerance).mean(axis=-1)
    return share


def smallest_sign_flip_p(n: int) -> float:
    """The smallest p-value that n differences can give in an exact two-sided sign-flip test."""
    return 2.0 ** (1 - n)


def standardised(differences: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """The mean paired difference in units of its standard deviation over seeds.

    The estimate has Hedges' correction for bias (Hedges 1981); the limits invert the noncentral t
    distribution (Steiger and Fouladi 1997), so they are exact for normal differences.

    Args:
        differences: [..., n], one per training seed.
        level: the coverage.

    Returns:
        Estimate, lower and upper limit, [...] each; NaN for one seed or no spread. Two seeds have
        limits and no unbiased estimate.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = values.shape[-1]
    if n < 2:
        nothing = np.full(values.shape[:-1], np.nan)
        return nothing, nothing, nothing
    spread = values.std(axis=-1, ddof=1)
    spread = np.where(spread > 1e-9 * np.abs(values).max(axis=-1), spread, np.nan)
    raw, df = values.mean(axis=-1) / spread, n - 1
    unbiased = np.nan
    if df > 1:
        unbiased = np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) * np.sqrt(2 / df)
    limits = [
        special.nctdtrinc(df, tail, raw * np.sqrt(n)) / np.sqrt(n)
        for tail in ((1 + level) / 2, (1 - level) / 2)
    ]
    return unbiased * raw, limits[0], limits[1]


def half_width_over_samples(strata: Sequence[ArrayLike], level: float = 0.95) -> Floats:
    """Half-width of the t-interval of each pair's difference, over the prompts both answered.

    It says how far a difference moves with other prompts, and nothing about other trainings.

    Args:
        strata: one [k, samples] per set, the mean over training seeds of each sample.
        level: the coverage.

    Returns:
        [k, k]; NaN if a set has one sample.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in strata]
    sizes = np.array([table.shape[1] for table in tables])
    if sizes.min() < 2:
        return np.full((len(tables[0]), len(tables[0])), np.nan)
    squared = np.array([_variances(table) / table.shape[1] for table in tables])
    squared /= len(tables) ** 2
    df = satterthwaite(squared, (sizes - 1).reshape(-1, 1, 1))
    half: Floats = stats.t.ppf((1 + level) / 2, df) * np.sqrt(squared.sum(axis=0))
    return half


def _variances(table: Floats) -> Floats:
    """[k, k] variances of the differences of all pairs of rows."""
    covariance = np.atleast_2d(np.cov(table))
    own = np.diag(covariance)
    summed = own[:, None] + own[None, :]
    variances = summed - 2 * covariance
    return np.where(variances > 1e-12 * summed, variances, 0.0)
