"""Whether one candidate is best everywhere: agreement of several orders, over bootstrap draws."""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from kdbench.stats.intervals import Floats

_DECIMALS = 9
"""Two candidates that are one function differ by rounding alone; to this they are equal."""


def kendall_w(figures: ArrayLike) -> Floats:
    """Kendall's coefficient of concordance of m orders of k candidates (Kendall and Smith 1939).

    W = 12 S / (m^2 (k^3 - k) - m T), S the squared deviations of the candidates' rank sums from
    their mean, T the correction for ties. 1: all orders are the same; orders at random have 1/m on
    average. For two orders it is (1 + Spearman's rho) / 2.

    Args:
        figures: [..., m, k], higher is better.

    Returns:
        [...]; NaN where all candidates are equal in every order.
    """
    values = np.round(np.asarray(figures, dtype=np.float64), _DECIMALS)
    m, k = values.shape[-2:]
    ranks = stats.rankdata(values, axis=-1)
    sums = ranks.sum(axis=-2)
    squares = np.square(sums - sums.mean(axis=-1, keepdims=True)).sum(axis=-1)
    equal = (values[..., :, None] == values[..., None, :]).sum(axis=-1)
    ties = (np.square(equal) - 1).sum(axis=(-1, -2))
    most = m**2 * (k**3 - k) - m * ties
    w: Floats = np.where(most > 0, 12 * squares / np.where(most > 0, most, 1), np.nan)
    return w


def best_shares(figures: ArrayLike) -> Floats:
    """How often each candidate is best; equal ones share it.

    Args:
        figures: [draws, ..., k].

    Returns:
        [..., k], sums to 1 over the candidates.
    """
    best = _is_best(figures)
    shares: Floats = (best / best.sum(axis=-1, keepdims=True)).mean(axis=0)
    return shares


def share_with_one_best(figures: ArrayLike) -> float:
    """Share of draws in which some candidate is best in all orders.

    Args:
        figures: [draws, m, k].
    """
    return float(_is_best(figures).all(axis=-2).any(axis=-1).mean())


def least_shared_best(figures: ArrayLike) -> float:
    """Of all pairs of orders, the smallest share of draws in which they have a best in common.

    Several orders have hardly ever one best by chance; two of them often do.

    Args:
        figures: [draws, m, k], m at least 2.
    """
    m = np.shape(figures)[1]
    values = np.asarray(figures)
    return min(share_with_one_best(values[:, list(pair)]) for pair in combinations(range(m), 2))


def _is_best(figures: ArrayLike) -> Floats:
    values = np.round(np.asarray(figures, dtype=np.float64), _DECIMALS)
    best: Floats = (values == values.max(axis=-1, keepdims=True)).astype(np.float64)
    return best
