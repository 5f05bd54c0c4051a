"""Tiers: against least squares and scipy's tests, and their error rates by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdbench.stats.intervals import Floats
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, equal_variance_p, holm, tiers


def table(k: int, n: int, seed: int, spread: float = 1.0) -> Floats:
    generator = np.random.default_rng(seed)
    means = generator.normal(0, spread, (k, 1))
    return means + generator.normal(0, 3, n) + generator.normal(0, 1, (k, n))


def least_squares_p(y: Floats) -> Floats:
    """p-values of all pairs from the dense design matrix of variant + block."""
    k, n = y.shape
    variant, block = np.repeat(np.eye(k), n, axis=0), np.tile(np.eye(n), (k, 1))
    design = np.hstack([variant, block[:, 1:]])
    inverse = np.linalg.pinv(design.T @ design)
    beta = inverse @ design.T @ y.ravel()
    df = k * n - np.linalg.matrix_rank(design)
    variance = np.sum((y.ravel() - design @ beta) ** 2) / df
    p = np.ones((k, k))
    for i in range(k):
        for j in range(k):
            contrast = np.zeros(design.shape[1])
            contrast[i] += 1
            contrast[j] -= 1
            if i != j:
                error = np.sqrt(variance * contrast @ inverse @ contrast)
                p[i, j] = 2 * stats.t.sf(abs(contrast @ beta) / error, df)
    return p


def holm_by_hand(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p) - rank) * p[index])
        adjusted[index] = min(1.0, running)
    return adjusted


@pytest.mark.parametrize(("k", "n"), [(3, 3), (6, 5), (16, 3), (4, 40)])
def test_pooled_comparisons_are_those_of_least_squares(k: int, n: int) -> None:
    y = table(k, n, seed=k * n)
    result = tiers([y])
    assert result.method == "pooled"
    np.testing.assert_allclose(result.p, holm(least_squares_p(y)), rtol=1e-8)


def test_two_variants_are_compared_by_the_paired_t_test() -> None:
    y = table(2, 6, seed=4)
    assert tiers([y]).p[0, 1] == pytest.approx(stats.ttest_rel(y[0], y[1]).pvalue)


def test_unequal_variances_fall_back_to_paired_t_tests() -> None:
    y = np.random.default_rng(5).normal(0, 1, (5, 20)) * np.array([[20], [1], [1], [1], [1]])
    result = tiers([y])
    raw = np.ones((5, 5))
    for i, j in zip(*np.triu_indices(5, 1), strict=True):
        raw[i, j] = raw[j, i] = stats.ttest_rel(y[i], y[j]).pvalue
    assert (result.method, result.homogeneity < HOMOGENEITY_LEVEL) == ("separate", True)
    np.testing.assert_allclose(result.p, holm(raw), rtol=1e-8)


def test_rows_kept_apart_do_not_enter_the_pooled_variance() -> None:
    y = table(5, 3, seed=6)
    wild = np.vstack([y, [[50.0, -40.0, 3.0]]])
    result = tiers([wild], apart=[False] * 5 + [True])
    raw = np.ones((6, 6))
    raw[:5, :5] = least_squares_p(y)
    raw[5, :5] = raw[:5, 5] = [stats.ttest_rel(row, wild[5]).pvalue for row in y]
    np.testing.assert_allclose(result.p, holm(raw), rtol=1e-8)


def test_average_over_sets_adds_their_errors() -> None:
    generator = np.random.default_rng(7)
    a, b = generator.normal(0, 1, (2, 9)), generator.normal(1, 4, (2, 25))
    d, e = a[0] - a[1], b[0] - b[1]
    parts = np.array([d.var(ddof=1) / 9, e.var(ddof=1) / 25]) / 4
    df = parts.sum() ** 2 / (parts[0] ** 2 / 8 + parts[1] ** 2 / 24)
    t = (d.mean() + e.mean()) / 2 / np.sqrt(parts.sum())
    assert tiers([a, b]).p[0, 1] == pytest.approx(2 * stats.t.sf(abs(t), df))


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_holm_is_the_step_down_procedure(raw: list[float]) -> None:
    p = np.ones((4, 4))
    upper = np.triu_indices(4, 1)
    p[upper] = raw
    adjusted = holm(np.minimum(p, p.T))
    np.testing.assert_allclose(adjusted[upper], holm_by_hand(raw))


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8), st.integers(2, 5))
def test_every_tier_holds_what_cannot_be_told_from_its_best(seed: int, k: int, n: int) -> None:
    y = table(k, n, seed, spread=4)
    result = tiers([y])
    tier, means = np.array(result.tier), y.mean(axis=1)
    for number in range(1, tier.max() + 1):
        rest = np.flatnonzero(tier >= number)
        best = rest[np.argmax(means[rest])]
        np.testing.assert_array_equal(tier[rest] == number, result.p[best, rest] >= 0.05)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(-50, 50))
def test_scale_and_shift_move_no_tier(seed: int, scale: float, shift: float) -> None:
    y = table(5, 4, seed, spread=3)
    assert tiers([y]).tier == tiers([scale * y + shift]).tier


def test_equal_rows_share_a_tier_and_different_constants_do_not() -> None:
    y = np.array([[0.1, 0.7, 0.4]] * 3) + np.array([[0.0], [0.0], [1.0]])
    assert tiers([y]).tier == (2, 2, 1)


def test_one_variant_is_its_own_tier() -> None:
    assert tiers([np.array([[1.0, 2.0]])]).tier == (1,)


def test_one_block_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        tiers([np.zeros((3, 1))])


@pytest.mark.parametrize(("k", "n"), [(15, 3), (16, 3), (5, 5)])
def test_equal_variants_are_told_apart_in_at_most_5_percent_of_tables(k: int, n: int) -> None:
    generator = np.random.default_rng(8)
    draws = generator.normal(0, 1, (1000, k, n)) + generator.normal(0, 3, (1000, 1, n))
    separated = [max(tiers([draw]).tier) > 1 for draw in draws]
    assert np.mean(separated) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_separate_comparisons_keep_the_family_wise_error_under_unequal_variances() -> None:
    generator = np.random.default_rng(9)
    sd = np.array([1.0, 1.0, 2.0, 4.0, 8.0])[:, None]
    tables = [generator.normal(0, 1, (5, 40)) * sd for _ in range(600)]
    separated = [max(tiers([y]).tier) > 1 for y in tables]
    assert np.mean(separated) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_three_seeds_and_fifteen_variants_separate_what_paired_t_tests_cannot() -> None:
    generator = np.random.default_rng(10)
    means = np.linspace(60, 50, 15)[:, None]
    y = means + generator.normal(0, 1, 3) + generator.normal(0, 0.6, (15, 3))
    pooled, separate = tiers([y]).p < 0.05, tiers([y], apart=[True] * 15).p < 0.05
    assert pooled.sum() > 5 * separate.sum()


@pytest.mark.parametrize(("k", "n"), [(16, 3), (4, 50)])
def test_homogeneity_p_values_are_uniform_when_variances_are_equal(k: int, n: int) -> None:
    generator = np.random.default_rng(11)
    p = [equal_variance_p(generator.normal(0, 2, (k, n))) for _ in range(800)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_homogeneity_of_two_variants_cannot_be_tested() -> None:
    assert np.isnan(equal_variance_p(np.zeros((2, 5))))


def test_the_interval_of_a_difference_is_scipys() -> None:
    y = table(2, 5, seed=12)
    low, high = stats.ttest_rel(y[0], y[1]).confidence_interval()
    assert tiers([y]).half_width[0, 1] == pytest.approx((high - low) / 2)


def test_intervals_of_differences_cover_95_percent_with_three_seeds() -> None:
    generator = np.random.default_rng(13)
    draws = generator.normal(0, 1, (600, 15, 3)) + generator.normal(0, 3, (600, 1, 3))
    covered = [abs(y[0].mean() - y[1].mean()) < tiers([y]).half_width[0, 1] for y in draws]
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 600))


def test_power_is_that_of_the_noncentral_t() -> None:
    generator = np.random.default_rng(14)
    draws = generator.normal(0, 1, (800, 2, 5)) + np.array([[2.0], [0.0]])
    found = np.mean([max(tiers([y]).tier) > 1 for y in draws])
    bound, shift = stats.t.ppf(0.975, 4), 2 / np.sqrt(2 / 5)
    power = stats.nct.sf(bound, 4, shift) + stats.nct.cdf(-bound, 4, shift)
    assert found == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / 800))
