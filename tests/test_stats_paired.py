"""Paired comparisons: against scipy's exact tests and intervals, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdbench.stats.paired import (
    half_width_over_samples,
    sign_flip_p,
    smallest_sign_flip_p,
    standardised,
)
from kdbench.stats.tiers import tiers


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_sign_flips_are_scipys_exact_permutations(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9))
def test_no_differences_give_less_than_the_smallest_p(differences: list[float]) -> None:
    smallest = smallest_sign_flip_p(len(differences))
    assert smallest <= sign_flip_p(differences) <= 1


@pytest.mark.parametrize("n", range(2, 11))
def test_agreeing_signs_give_the_smallest_p(n: int) -> None:
    assert sign_flip_p(np.arange(1.0, n + 1)) == smallest_sign_flip_p(n) == 2 / 2**n


@pytest.mark.parametrize("n", [1, 13])
def test_too_few_and_too_many_seeds_have_no_exact_test(n: int) -> None:
    assert np.isnan(sign_flip_p(np.ones((2, n)))).all()


def test_sign_flips_of_equal_variants_keep_their_level_under_heavy_tails() -> None:
    differences = np.random.default_rng(1).standard_t(1.5, (3000, 7))
    rejected = np.mean(sign_flip_p(differences) <= 0.05)
    assert rejected < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 3000)


def test_limits_of_the_effect_cover_95_percent_with_three_seeds() -> None:
    differences = np.random.default_rng(2).normal(1.2, 1, (4000, 3))
    _, low, high = standardised(differences)
    covered = np.mean((low < 1.2) & (high > 1.2))
    assert covered == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 4000))


def test_the_effect_is_unbiased() -> None:
    estimates, _, _ = standardised(np.random.default_rng(3).normal(0.8, 1, (20_000, 5)))
    assert estimates.mean() == pytest.approx(0.8, abs=4 * estimates.std() / np.sqrt(20_000))


@given(st.integers(0, 1000), st.integers(3, 8))
def test_the_effects_limits_hold_zero_just_where_p_is_not_small(seed: int, n: int) -> None:
    differences = np.random.default_rng(seed).normal(1, 1, n)
    _, low, high = standardised(differences)
    p = stats.ttest_1samp(differences, 0).pvalue
    assert (low <= 0 <= high) == (p >= 0.05)


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_the_effect_has_no_unit(seed: int, scale: float) -> None:
    differences = np.random.default_rng(seed).normal(1, 1, 4)
    np.testing.assert_allclose(standardised(scale * differences), standardised(differences), 1e-5)


def test_no_spread_and_one_seed_have_no_effect() -> None:
    assert np.isnan(standardised(np.ones((2, 3)))).all()
    assert np.isnan(standardised(np.ones((2, 1)))).all()


def test_two_seeds_have_limits_and_no_estimate() -> None:
    estimate, low, high = standardised([0.5, 1.5])
    assert np.isnan(estimate)
    assert low < high


def test_interval_over_prompts_is_scipys() -> None:
    a, b = np.random.default_rng(4).normal(0, 1, (2, 30))
    low, high = stats.ttest_rel(a, b).confidence_interval()
    assert half_width_over_samples([np.stack([a, b])])[0, 1] == pytest.approx((high - low) / 2)


def test_interval_over_prompts_of_several_sets_is_that_of_the_tiers() -> None:
    generator = np.random.default_rng(5)
    strata = [generator.normal(0, sd, (2, n)) for sd, n in ((1, 9), (4, 25))]
    expected = tiers(strata, apart=[True, True]).half_width
    np.testing.assert_allclose(half_width_over_samples(strata)[0, 1], expected[0, 1])


def test_equal_rows_have_no_width() -> None:
    row = np.random.default_rng(6).normal(40, 9, 30)
    assert half_width_over_samples([np.stack([row, row])])[0, 1] == 0


def test_one_prompt_has_no_interval() -> None:
    assert np.isnan(half_width_over_samples([np.ones((2, 1))])).all()
