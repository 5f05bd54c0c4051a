"""Hierarchical bootstrap: what it covers, by simulation, and what its draws share.

The measured coverages stand in docs/statistics.md.
"""

import numpy as np
import pytest

from kdbench.stats.bootstrap import percentile, resample
from kdbench.stats.intervals import Floats, over_seeds

RUNS = 1000
"""Simulated runs: the rows of one table, since rows share nothing but the bootstrap's draws."""

ERROR = 3 * np.sqrt(0.95 * 0.05 / RUNS)


def runs(seed: int, n: int, *, sd: float, prompt: float, noise: float) -> Floats:
    generator = np.random.default_rng(seed)
    prompts = 100
    return (
        generator.normal(0, sd, (RUNS, n, 1))
        + generator.normal(0, prompt, (RUNS, 1, prompts))
        + generator.normal(0, noise, (RUNS, n, prompts))
    )


def coverage_of_bootstrap(table: Floats) -> float:
    low, high = percentile(resample([table], np.random.default_rng(0), draws=1000).means())
    return float(np.mean((low < 0) & (high > 0)))


def coverage_of_t(table: Floats) -> float:
    intervals = [over_seeds(figures) for figures in table.mean(axis=2)]
    return float(np.mean([i.low < 0 < i.high for i in intervals]))


@pytest.mark.parametrize(("n", "measured"), [(3, 0.757), (5, 0.83), (10, 0.90)])
def test_bootstrap_covers_too_little_where_few_seeds_make_the_noise(
    n: int, measured: float
) -> None:
    table = runs(1, n, sd=1, prompt=0, noise=0.1)
    error = 3 * np.sqrt(measured * (1 - measured) / RUNS)
    assert coverage_of_bootstrap(table) == pytest.approx(measured, abs=error + 0.01)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_student_t_over_few_seeds_covers_other_trainings(n: int) -> None:
    assert coverage_of_t(runs(2, n, sd=1, prompt=0, noise=0.1)) == pytest.approx(0.95, abs=ERROR)


@pytest.mark.parametrize("n", [3, 5])
def test_bootstrap_covers_other_prompts_and_student_t_over_seeds_does_not(n: int) -> None:
    table = runs(3, n, sd=0.7, prompt=14, noise=10)
    assert coverage_of_bootstrap(table) == pytest.approx(0.95, abs=ERROR + 0.01)
    assert coverage_of_t(table) < 0.85


def test_bootstrap_of_one_seed_covers_other_prompts() -> None:
    table = runs(4, 1, sd=0, prompt=14, noise=0)
    assert coverage_of_bootstrap(table) == pytest.approx(0.95, abs=ERROR + 0.01)


@pytest.mark.parametrize(("n", "students", "measured"), [(3, 2, 0.75), (5, 5, 0.88)])
def test_bootstrap_over_few_initial_students_covers_as_little_as_over_few_seeds(
    n: int, students: int, measured: float
) -> None:
    generator = np.random.default_rng(12)
    table = generator.normal(0, 1, (RUNS, n, 1, 1)) + generator.normal(0, 1, (RUNS, 1, students, 1))
    error = 3 * np.sqrt(measured * (1 - measured) / RUNS)
    assert coverage_of_bootstrap(table) == pytest.approx(measured, abs=error + 0.01)
    assert coverage_of_t(table.mean(axis=2)) < 0.93


def test_bootstrap_covers_other_initial_students_where_prompts_make_the_noise() -> None:
    table = runs(13, 3, sd=0.7, prompt=14, noise=10)[:, :, None]
    students = np.random.default_rng(14).normal(0, 0.7, (RUNS, 1, 2, 1))
    assert coverage_of_bootstrap(table + students) == pytest.approx(0.95, abs=ERROR + 0.01)


def test_trainings_are_the_crossed_draws_of_seeds_and_students() -> None:
    seeds, students = np.array([0.0, 1.0, 5.0]), np.array([0.0, 20.0])
    table = (seeds[:, None] + students).reshape(1, 3, 2, 1) + np.zeros((1, 3, 2, 10))
    drawn = resample([table], np.random.default_rng(15))
    np.testing.assert_allclose(drawn.values[0][0, 0], (seeds[:, None] + students).ravel())
    weights = drawn.weights.reshape(-1, 3, 2)
    crossed = weights.sum(axis=2, keepdims=True) * weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, crossed)


def test_seeds_share_the_drawn_prompts() -> None:
    prompts = np.random.default_rng(5).normal(size=(1, 1, 30)) + np.zeros((1, 4, 1))
    drawn = resample([prompts], np.random.default_rng(6))
    np.testing.assert_allclose(np.ptp(drawn.values[0], axis=2), 0, atol=1e-12)
    error = prompts[0, 0].std() / np.sqrt(30)
    assert drawn.means().std() == pytest.approx(error, rel=4 / np.sqrt(2 * 2000))


def test_variants_share_their_draws() -> None:
    table = np.random.default_rng(7).normal(size=(1, 3, 20))
    means = resample([np.vstack([table, table + 1])], np.random.default_rng(8)).means()
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1)


def test_sets_share_the_drawn_seeds_and_weigh_alike() -> None:
    seeds = np.array([0.0, 1.0, 5.0]).reshape(1, 3, 1)
    one, two = seeds + np.zeros((1, 3, 10)), seeds + np.zeros((1, 3, 90))
    both = resample([one, two], np.random.default_rng(9)).means()
    alone = resample([one], np.random.default_rng(9)).means()
    np.testing.assert_allclose(both, alone)


def test_the_generator_alone_decides_the_draws() -> None:
    table = np.random.default_rng(10).normal(size=(2, 3, 20))
    first, again = (resample([table], np.random.default_rng(11)).means() for _ in range(2))
    np.testing.assert_array_equal(first, again)
