"""Ranks, probability of improvement and profiles: against scipy and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdbench.stats.bootstrap import Resampled, resample
from kdbench.stats.intervals import Floats
from kdbench.stats.ranking import performance_profile, probability_of_improvement, ranks, win_rate


def table(seed: int, shape: tuple[int, int, int]) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).round(1)


def drawn(strata: list[Floats], seed: int = 0) -> Resampled:
    return resample(strata, np.random.default_rng(seed), draws=200)


small = st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=6)


@given(small)
def test_mean_ranks_are_scipys(rows: list[list[int]]) -> None:
    figures = np.array(rows, dtype=float)
    expected = stats.rankdata(-figures, axis=1).mean(axis=0)
    np.testing.assert_allclose(ranks(figures).mean, expected)


@given(small)
def test_every_variant_has_one_rank_and_every_rank_one_variant(rows: list[list[int]]) -> None:
    share = ranks(np.array(rows, dtype=float)).share
    np.testing.assert_allclose(share.sum(axis=0), 1)
    np.testing.assert_allclose(share.sum(axis=1), 1)


@given(small)
def test_mean_rank_is_that_of_the_shares(rows: list[list[int]]) -> None:
    found = ranks(np.array(rows, dtype=float))
    np.testing.assert_allclose(found.share @ np.arange(1, 5), found.mean)


def test_share_of_the_first_rank_is_how_often_a_variant_is_best() -> None:
    found = ranks(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 0.0], [3.0, 3.0, 1.0]]))
    np.testing.assert_allclose(found.share[:, 0], [2.5 / 4, 1.5 / 4, 0])
    np.testing.assert_allclose((found.low[2], found.high[2]), (3, 3))


def test_rounding_makes_no_order() -> None:
    found = ranks(np.array([[0.1 + 0.2, 0.3]] * 5))
    np.testing.assert_allclose(found.share, 0.5)


@given(st.integers(0, 1000))
def test_probability_of_improvement_is_mann_whitneys(seed: int) -> None:
    strata = [table(seed, (3, 4, 1)), table(seed + 1, (3, 4, 1))]
    found = probability_of_improvement(strata, drawn(strata)).estimate
    for i in range(3):
        for j in range(3):
            each = [stats.mannwhitneyu(s[i, :, 0], s[j, :, 0]).statistic / 16 for s in strata]
            assert found[i, j] == pytest.approx(np.mean(each))


def test_probability_of_improvement_and_its_limits_are_complements() -> None:
    strata = [table(2, (4, 3, 20))]
    found = probability_of_improvement(strata, drawn(strata))
    np.testing.assert_allclose(found.estimate + found.estimate.T, 1)
    np.testing.assert_allclose(found.low + found.high.T, 1)


def test_a_variant_above_all_others_improves_with_certainty() -> None:
    strata = [np.stack([np.full((3, 9), 5.0), table(3, (1, 3, 9))[0]])]
    found = probability_of_improvement(strata, drawn(strata))
    corner = (found.estimate[0, 1], found.low[0, 1], found.high[0, 1])
    assert corner == pytest.approx((1, 1, 1))


def test_win_rate_counts_prompts_within_seeds() -> None:
    strata = [table(4, (3, 2, 7)), table(5, (3, 2, 4))]
    found = win_rate(strata)
    for i in range(3):
        for j in range(3):
            shares = []
            for scores in strata:
                a, b = scores[i].ravel(), scores[j].ravel()
                pairs = list(zip(a, b, strict=True))
                shares.append(np.mean([1.0 if x > y else 0.5 * (x == y) for x, y in pairs]))
            assert found[i, j] == pytest.approx(np.mean(shares))


def test_profile_is_the_share_of_figures_above_a_level() -> None:
    strata = [table(6, (2, 3, 5)), table(7, (2, 3, 8))]
    levels = np.linspace(-1, 1, 9)
    found = performance_profile(strata, drawn(strata), levels).estimate
    for i in range(2):
        figures = np.concatenate([scores[i].mean(axis=1) for scores in strata])
        np.testing.assert_allclose(found[i], [(figures > level).mean() for level in levels])


@given(st.integers(0, 1000))
def test_profiles_fall_and_their_bands_hold_order(seed: int) -> None:
    strata = [table(seed, (2, 3, 6))]
    found = performance_profile(strata, drawn(strata), np.linspace(-2, 2, 15))
    for curve in (found.estimate, found.low, found.high):
        assert (np.diff(curve, axis=1) <= 1e-12).all()
    assert (found.low <= found.high).all()
