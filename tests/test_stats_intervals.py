"""Intervals cover at the level they claim, by simulation and against scipy."""

import numpy as np
import pytest
from scipy import stats

from kdbench.stats.intervals import (
    newcombe,
    of_deviation,
    over_samples,
    over_seeds,
    satterthwaite,
    wilson,
)


def test_interval_over_seeds_is_scipys() -> None:
    values = np.array([57.1, 58.3, 56.2])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    interval = over_seeds(values)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((values.mean(), low, high))


def test_interval_over_three_seeds_covers_95_percent() -> None:
    draws = np.random.default_rng(0).normal(5, 2, (4000, 3))
    covered = [i.low < 5 < i.high for i in map(over_seeds, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_interval_over_samples_of_unequal_sets_covers_95_percent() -> None:
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        interval = over_samples([generator.normal(40, 9, 12), generator.normal(60, 2, 30)])
        covered.append(interval.low < 50 < interval.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.016)


def test_one_seed_has_no_interval_over_seeds() -> None:
    interval = over_seeds([57.0])
    assert interval.mean == 57.0
    assert np.isnan([interval.low, interval.high]).all()


def test_degrees_of_freedom_are_welchs() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(0, 1, 7), generator.normal(0, 4, 15)
    parts = [a.var(ddof=1) / 7, b.var(ddof=1) / 15]
    expected = stats.ttest_ind(a, b, equal_var=False).df
    assert satterthwaite(parts, [6, 14]) == pytest.approx(expected)


def test_interval_of_the_deviation_covers_95_percent() -> None:
    draws = np.random.default_rng(3).normal(0, 1.7, (4000, 3))
    covered = [i.low < 1.7 < i.high for i in map(of_deviation, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_no_deviation() -> None:
    assert np.isnan(of_deviation([57.0]).mean)
    assert of_deviation([1.0, 3.0]).mean == pytest.approx(2**0.5)  # over n - 1


@pytest.mark.parametrize(("count", "n"), [(0, 3), (1, 3), (3, 3), (7, 40)])
def test_interval_of_a_share_is_scipys(count: int, n: int) -> None:
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    interval = wilson(count, n)
    found = (interval.mean, interval.low, interval.high)
    assert found == pytest.approx((count / n, expected.low, expected.high), abs=1e-12)


def test_no_trials_have_no_share() -> None:
    assert np.isnan(wilson(0, 0).mean)


def test_a_difference_of_shares_has_the_interval_of_newcombes_paper() -> None:
    found = newcombe(56, 70, 48, 80)
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
