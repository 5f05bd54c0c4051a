"""Which variants can be told apart: a randomised-block model, Holm's correction, tiers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kdbench.base.seeds import derive
from kdbench.stats.intervals import Floats, satterthwaite

Bools = NDArray[np.bool_]
Method = Literal["pooled", "separate"]

LEVEL = 0.05
"""Family-wise error rate of the comparisons within one column of a table."""

HOMOGENEITY_LEVEL = 0.01
"""Below this p the residual variances are unequal; at .05 one sound column in 20 would be lost."""

_DRAWS = 1_999


@dataclass(frozen=True)
class Tiers:
    """The tiers of the variants of one column.

    Attributes:
        tier: [k], from 1, the best.
        p: [k, k], Holm-corrected p-values of all pairs.
        method: "pooled" (randomised blocks) or "separate" (paired t-tests).
        homogeneity: p-value of equal residual variances, NaN where it cannot be tested.
        half_width: [k, k], half of the 95 % t-interval of each pair's difference, for that pair
            alone: it carries no correction.
    """

    tier: tuple[int, ...]
    p: Floats
    half_width: Floats
    method: Method
    homogeneity: float


def tiers(strata: Sequence[ArrayLike], apart: Sequence[bool] = (), level: float = LEVEL) -> Tiers:
    """Sorts variants into tiers whose rows cannot be told from the tier's best.

    Model: y = variant + block + error, one error variance for all variants, so that three training
    seeds and 15 variants estimate it with 28 degrees of freedom, not 2. All pairs of the column
    are compared with Holm's correction (Holm 1979), so the chance of separating any two equal
    variants is at most `level`. If the residual variances differ, each pair has its own paired
    t-test instead.

    Args:
        strata: usually one [k, n] table, k variants by n blocks (training seeds), higher is
            better; for the average of several sets over samples, one [k, n_s] table per set.
        apart: [k], variants kept out of the pooled variance and always compared by paired t-tests
            (those with a diverged trial: their errors are of another kind).
        level: family-wise error rate.

    Raises:
        ValueError: a table of fewer than two blocks.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in strata]
    if any(table.shape[1] < 2 for table in tables):
        raise ValueError("a comparison needs at least two blocks")
    alike = ~np.array(apart, dtype=bool) if len(apart) else np.ones(len(tables[0]), dtype=bool)
    homogeneity = float(
        np.nanmin([1.0, *(len(tables) * equal_variance_p(table[alike]) for table in tables)])
    )
    pooled = homogeneity >= HOMOGENEITY_LEVEL and alike.sum() > 1
    method: Method = "pooled" if pooled else "separate"
    error, freedom = _separate_errors(tables)
    if pooled:
        both = alike[:, None] & alike[None, :]
        shared_error, shared_freedom = _pooled_errors(tables, alike)
        error = np.where(both, shared_error, error)
        freedom = np.where(both, shared_freedom, freedom)
    means = np.mean([table.mean(axis=1) for table in tables], axis=0)
    adjusted = holm(_two_sided(means, error, freedom))
    testable = alike.sum() > 2
    return Tiers(
        tier=_split(means, adjusted, level),
        p=adjusted,
        half_width=stats.t.ppf(0.975, freedom) * error,
        method=method,
        homogeneity=homogeneity if testable else np.nan,
    )


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of a symmetric [k, k] table of p-values; the diagonal is 1."""
    upper = np.triu_indices(len(p), 1)
    adjusted = np.ones_like(p)
    adjusted[upper] = holm_list(p[upper])
    return np.minimum(adjusted, adjusted.T)


def holm_list(p: Floats) -> Floats:
    """Holm's step-down correction of [m] p-values (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def equal_variance_p(table: Floats) -> float:
    """Monte-Carlo p-value of equal error variances in a randomised-block table.

    Bartlett's statistic on the residuals' sums of squares; its null distribution is simulated,
    since the residuals of one block sum to zero and the chi-square approximation fails for few
    blocks. Normal errors are assumed: heavy tails look like unequal variances.

    Args:
        table: [k, n]; fewer than three variants share their residuals, and nothing can be tested.

    Returns:
        The p-value, NaN for fewer than three variants.
    """
    if len(table) < 3:
        return np.nan
    observed = _bartlett(_residuals(table))
    return float((1 + np.sum(_null(*table.shape) >= observed)) / (1 + _DRAWS))


def _split(means: Floats, adjusted: Floats, level: float) -> tuple[int, ...]:
    tier = np.zeros(len(means), dtype=int)
    while not tier.all():
        best = int(np.argmax(np.where(tier == 0, means, -np.inf)))
        tier[(tier == 0) & (adjusted[best] >= level)] = tier.max() + 1
    return tuple(map(int, tier))


def _pooled_errors(tables: Sequence[Floats], alike: Bools) -> tuple[Floats, Floats]:
    squared, df = [], []
    for table in tables:
        k, n = int(alike.sum()), table.shape[1]
        df.append((k - 1) * (n - 1))
        variance = np.square(_residuals(table[alike])).sum() / df[-1]
        squared.append(np.full((len(table), len(table)), 2 * variance / n))
    return _combined(squared, df)


def _separate_errors(tables: Sequence[Floats]) -> tuple[Floats, Floats]:
    squared = []
    for table in tables:
        differences = table[:, None] - table[None, :]
        centred = _clean(differences - differences.mean(-1, keepdims=True), table)
        squared.append(np.square(centred).sum(-1) / (table.shape[1] - 1) / table.shape[1])
    return _combined(squared, [table.shape[1] - 1 for table in tables])


def _combined(squared: Sequence[Floats], df: Sequence[int]) -> tuple[Floats, Floats]:
    """Standard errors of all differences of means over sets, and their degrees of freedom."""
    errors = np.sqrt(np.sum(squared, axis=0)) / len(squared)
    return errors, satterthwaite(np.array(squared), np.reshape(df, (-1, 1, 1)))


def _two_sided(means: Floats, errors: Floats, freedom: Floats) -> Floats:
    """[k, k] p-values; without an error, differences beyond rounding are certain."""
    differences = np.abs(means[:, None] - means[None, :])
    exact = errors == 0
    tail: Floats = 2 * stats.t.sf(differences / np.where(exact, 1.0, errors), freedom)
    return np.where(exact, np.where(differences > 1e-9, 0.0, 1.0), tail)


def _residuals(tables: Floats) -> Floats:
    """What is left of [..., k, n] tables without variant and block effects."""
    rows, columns = tables.mean(-1, keepdims=True), tables.mean(-2, keepdims=True)
    return _clean(tables - rows - columns + tables.mean((-2, -1), keepdims=True), tables)


def _clean(residuals: Floats, tables: Floats) -> Floats:
    """Rounding errors of exact ties are zeros, not tiny variances."""
    return np.where(np.abs(residuals) < 1e-10 * np.abs(tables).max(), 0.0, residuals)


def _bartlett(residuals: Floats) -> Floats:
    """log of arithmetic over geometric mean of the rows' sums of squares, of [..., k, n]."""
    squares = np.square(residuals).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.log(squares.mean(-1)) - np.log(squares).mean(-1)
    return np.where(squares.any(-1), ratio, 0.0)


@lru_cache(maxsize=64)
def _null(k: int, n: int) -> Floats:
    generator = np.random.default_rng(derive("equal variances", k, n))
    chunk = max(1, 1_000_000 // (k * n))
    sizes = [min(chunk, _DRAWS - start) for start in range(0, _DRAWS, chunk)]
    draws = (generator.standard_normal((size, k, n)) for size in sizes)
    return np.concatenate([_bartlett(_residuals(draw)) for draw in draws])
