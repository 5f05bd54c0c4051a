"""Choosing among candidates: by simulation, against plain loops, and in closed form."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kdbench.stats.intervals import Floats
from kdbench.stats.selection import Selection, bootstrapped, cross_fitted, gains, optimistic

RUNS = 100
PLANTED = ([0, 1, 8], [8, 1, 0])
"""Means of three candidates on two sets: each set has a best of its own."""


def tables(
    seed: int,
    *,
    candidates: int = 5,
    seeds: int = 1,
    samples: int = 40,
    luck: float = 0,
    means: Sequence[Sequence[float]] = ((), ()),
) -> dict[str, Floats]:
    """Prompts of their own difficulty, noise, and by `luck` trainings that went well or not."""
    generator = np.random.default_rng(seed)
    drawn = {}
    for number, mean in enumerate(means):
        table = generator.normal(0, 1, (len(mean) or candidates, seeds, samples))
        table += generator.normal(0, 3, (1, 1, samples))
        table += generator.normal(0, luck, (*table.shape[:2], 1)) if luck else 0
        drawn[f"set-{number}"] = table + (np.array(mean)[:, None, None] if mean else 0)
    return drawn


def chosen(drawn: dict[str, Floats], seed: int = 0) -> Selection:
    return cross_fitted(drawn, splits=10, generator=np.random.default_rng(seed))


def bias(select: Callable[[dict[str, Floats]], Selection], **shape: float) -> tuple[Floats, Floats]:
    """Mean of (per set, on average) minus the first candidate over runs, and three errors of it."""
    found = []
    for run in range(RUNS):
        selection = select(tables(run, **shape))  # type: ignore[arg-type]
        first = selection.fixed["average"][..., 0]
        tuned = (selection.per_set["average"], selection.on_average["average"])
        found.append([np.mean(way - first) for way in tuned])
    values = np.array(found)
    return values.mean(axis=0), 3 * values.std(axis=0, ddof=1) / np.sqrt(RUNS)


def test_choosing_among_equals_gains_nothing_where_other_prompts_are_reported() -> None:
    mean, error = bias(chosen)
    assert (np.abs(mean) < error).all()


def test_choosing_among_equals_seems_to_gain_where_the_same_prompts_are_reported() -> None:
    mean, error = bias(optimistic)
    assert (mean > 2 * error).all()


def test_luck_of_a_training_is_no_gain_where_another_training_is_reported() -> None:
    mean, error = bias(chosen, seeds=3, luck=1)
    assert (np.abs(mean) < error).all()


def test_luck_of_a_training_stays_in_the_figure_of_one_seed() -> None:
    mean, error = bias(chosen, luck=1)
    assert (mean > 2 * error).all()


def test_a_draw_of_the_bootstrap_peeks_no_more_than_the_estimate() -> None:
    def draw(drawn: dict[str, Floats]) -> Selection:
        return bootstrapped(drawn, generator=np.random.default_rng(1), draws=20)

    mean, error = bias(draw, samples=20)
    assert (np.abs(mean) < error).all()


def test_best_candidate_of_each_set_is_found() -> None:
    found = chosen(tables(0, means=PLANTED))
    assert found.picked_per_set["set-0"] == pytest.approx([0, 0, 1])
    assert found.picked_per_set["set-1"] == pytest.approx([1, 0, 0])
    assert found.per_set["average"] == pytest.approx(
        (found.fixed["set-0"][2] + found.fixed["set-1"][0]) / 2
    )


def test_one_candidate_for_all_sets_is_the_best_of_their_mean() -> None:
    found = chosen(tables(0, means=([0, 6, 8], [8, 6, 0])))
    assert found.picked_on_average == pytest.approx([0, 1, 0])
    assert found.on_average["set-1"] == pytest.approx(found.fixed["set-1"][1])


def test_optimistic_choice_is_the_largest_mean() -> None:
    drawn = tables(3, seeds=2)
    found = optimistic(drawn)
    means = {name: table.mean(axis=(1, 2)) for name, table in drawn.items()}
    assert found.per_set["set-0"] == pytest.approx(means["set-0"].max())
    assert found.on_average["average"] == pytest.approx(np.mean(list(means.values()), axis=0).max())


@pytest.mark.parametrize("samples", [40, 41])
def test_fixed_candidates_have_their_plain_means(samples: int) -> None:
    drawn = tables(4, seeds=3, samples=samples)
    found = chosen(drawn)
    for name, table in drawn.items():
        np.testing.assert_allclose(found.fixed[name], table.mean(axis=(1, 2)))


def test_two_prompts_and_three_seeds_agree_with_a_plain_loop() -> None:
    drawn = tables(5, seeds=3, samples=2, luck=2)
    for name, table in drawn.items():
        values = []
        for prompt in range(2):
            for seed in range(3):
                others = [other for other in range(3) if other != seed]
                best = table[:, others, 1 - prompt].mean(axis=1).argmax()
                values.append(table[best, seed, prompt])
        assert chosen(drawn).per_set[name] == pytest.approx(np.mean(values))


def test_first_of_equal_candidates_is_chosen() -> None:
    one = tables(6, candidates=1, seeds=2)
    twice = {name: np.concatenate([table, table]) for name, table in one.items()}
    assert chosen(twice).picked_on_average == pytest.approx([1, 0])


def test_one_candidate_gains_exactly_nothing() -> None:
    _, found = gains(
        tables(7, candidates=1, seeds=2), splits=3, generator=np.random.default_rng(0), draws=50
    )
    for limits in (found.per_set["average"], found.set_over_average["set-0"]):
        for value in (limits.estimate, limits.low, limits.high):
            np.testing.assert_allclose(value, 0, atol=1e-12)


def test_draws_of_the_fixed_candidates_are_the_ordinary_bootstrap() -> None:
    drawn = tables(8, samples=200)
    draws = bootstrapped(drawn, generator=np.random.default_rng(0), draws=2000)
    for name, table in drawn.items():
        error = table[:, 0].std(axis=1) / np.sqrt(200)
        np.testing.assert_allclose(
            draws.fixed[name].mean(axis=0), table.mean(axis=(1, 2)), atol=0.1
        )
        np.testing.assert_allclose(draws.fixed[name].std(axis=0), error, rtol=0.1)


@pytest.mark.parametrize("seeds", [2, 3])
def test_luck_of_trainings_seldom_lies_above_its_interval(seeds: int) -> None:
    above = []
    for run in range(200):
        drawn = tables(run, candidates=3, seeds=seeds, luck=1)
        _, found = gains(drawn, splits=4, generator=np.random.default_rng(run))
        above.append(found.on_average["average"].low[0] > 0)
    assert np.mean(above) < 0.065  # 2.5 % and three standard errors


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (3, 0.3)])
def test_intervals_hold_the_gain_of_a_planted_best(seeds: int, luck: float) -> None:
    held = []
    for run in range(RUNS):
        drawn = tables(run, seeds=seeds, luck=luck, means=PLANTED)
        generator = np.random.default_rng(run)
        _, found = gains(drawn, splits=5, generator=generator, draws=100)
        limits = found.set_over_average["average"]
        held.append(limits.low <= 4 <= limits.high)
    assert np.mean(held) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / RUNS)
