"""Stability figures: what counts as a spike, and each figure against its definition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.stats.spikes import SPIKE_Z, find_spikes
from kdbench.stats.stability import TrialStability, of_trial, of_variant, threshold_of

STEPS = np.arange(300)
FALLING = 1 + 4 * np.exp(-STEPS / 30)


def noisy(seed: int, relative: float = 0.08) -> np.ndarray[Any, np.dtype[np.float64]]:
    return FALLING * (1 + relative * np.random.default_rng(seed).standard_normal(300))


def spikes(loss: Any) -> int:
    return len(find_spikes(np.arange(1, len(loss) + 1), loss))


def log(**columns: Any) -> list[dict[str, Any]]:
    length = len(next(iter(columns.values())))
    rows: list[dict[str, Any]] = [{"step": step + 1} for step in range(length)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[name] = value
    return rows


def trial(rows: list[dict[str, Any]], **others: Any) -> TrialStability:
    settings = {"seed": 0, "diverged": False, "diverged_at": None, "threshold": np.nan}
    return of_trial(rows, **{**settings, **others})


@given(st.lists(st.floats(-1e6, 1e6), max_size=80), st.booleans())
def test_no_monotone_curve_has_a_spike(values: list[float], rising: bool) -> None:
    assert spikes(sorted(values, reverse=not rising)) == 0


def test_noise_a_drop_and_what_is_not_finite_are_no_spikes() -> None:
    assert sum(spikes(noisy(seed)) for seed in range(30)) <= 1
    drop = noisy(3, relative=0.03)
    drop[150] /= 3
    assert spikes(drop) == 0
    assert spikes([*FALLING, np.inf, np.nan]) == 0  # divergence
    noiseless = FALLING.copy()
    noiseless[150] *= 1.1
    assert spikes(noiseless) == 1


@pytest.mark.parametrize("at", [3, 40, 150, 296])
@pytest.mark.parametrize("width", [1, 3])
def test_a_jump_of_the_loss_is_one_spike(at: int, width: int) -> None:
    loss = noisy(1, relative=0.03)
    before = spikes(loss)
    loss[at : min(at + width, 298)] *= 2.5
    assert spikes(loss) == before + 1


def test_a_spike_is_found_where_it_is_with_its_height() -> None:
    loss = noisy(2, relative=0.03)
    loss[100:103] *= (2, 5, 3)
    loss[200] *= 3
    first, second = find_spikes(np.arange(1, 301), loss)
    assert (first.step, first.length, first.loss) == (101, 3, loss[101])
    assert (second.step, second.length, second.loss) == (201, 1, loss[200])
    assert min(first.z, second.z) > SPIKE_Z


def test_steps_that_the_log_lacks_do_not_move_a_spike() -> None:
    loss = noisy(2, relative=0.03)
    loss[100] *= 5
    kept = np.delete(np.arange(300), 50)
    assert [spike.step for spike in find_spikes(kept + 1, loss[kept])] == [101]


@given(st.integers(0, 50), st.floats(1e-3, 1e3))
def test_the_scale_of_the_loss_moves_no_spike(seed: int, scale: float) -> None:
    loss = noisy(seed)
    loss[[50, 200]] *= 2
    assert spikes(scale * loss) == spikes(loss)


def test_gradient_figures_are_numpys() -> None:
    norms = np.random.default_rng(4).gamma(2, 1, 200)
    figures = trial(log(grad_norm=norms, clipped=norms > 1))
    expected = (np.median(norms), np.percentile(norms, 99), norms.std() / norms.mean())
    found = (figures.grad_norm_median, figures.grad_norm_p99, figures.grad_norm_cv)
    assert found == pytest.approx(expected)
    assert figures.clipped_share == pytest.approx(np.mean(norms > 1))


def test_gap_and_steps_are_those_of_the_logged_values() -> None:
    assert trial(log(dev_nll=[3.0, None, 1.5, 1.0, 1.25])).dev_gap == pytest.approx(0.25)
    figures = trial(log(tvd=[0.5, None, 0.3, 0.2, 0.4]), threshold=0.3)
    assert figures.steps_to_threshold == 3


def test_an_empty_log_gives_nan_and_no_zero() -> None:
    figures = trial([])
    assert np.isnan(
        [figures.loss_spikes, figures.grad_norm_median, figures.clipped_share, figures.dev_gap]
    ).all()


def test_threshold_is_nine_tenths_of_the_median_way_or_unknown() -> None:
    logs = [log(tvd=[0.5, None, last]) for last in (0.1, 0.2, 0.45)]
    assert threshold_of(logs) == pytest.approx(0.5 - 0.9 * (0.5 - 0.2))
    assert np.isnan(threshold_of([log(loss=[1.0, 2.0])]))


def test_a_variant_is_the_mean_of_its_trials() -> None:
    trials = [trial(log(grad_norm=[n, n]), seed=s) for s, n in enumerate((1.0, 2.0, 6.0))]
    figures = of_variant(trials, [57.0, 55.0, 58.0])
    assert figures.grad_norm_median == pytest.approx(3.0)
    assert figures.spread.mean == pytest.approx(np.std([57.0, 55.0, 58.0], ddof=1))
    assert (figures.worst_seed, figures.worst_rouge_l) == (1, 55.0)


def test_a_threshold_that_most_trials_miss_is_not_reached() -> None:
    curves = ([0.5, 0.1], [0.5, 0.4], [0.5, 0.4])
    figures = of_variant([trial(log(tvd=c), threshold=0.2) for c in curves], [1.0, 2.0, 3.0])
    assert np.isnan(figures.steps_to_threshold)
    assert figures.reached_threshold == 1


def test_divergence_is_counted_with_its_first_step() -> None:
    trials = [trial(log(loss=[1.0] * 9), diverged=d, diverged_at=at) for d, at in
              ((True, 7), (True, None), (False, None))]  # fmt: skip
    figures = of_variant(trials, [1.0, 2.0, 3.0])
    assert (figures.n_diverged, figures.diverged_at) == (2, 7)


def test_no_divergence_in_three_trials_leaves_room_for_half() -> None:
    figures = of_variant([trial(log(loss=[1.0] * 9))] * 3, [1.0, 2.0, 3.0])
    assert (figures.diverged_low, figures.diverged_high) == pytest.approx((0, 0.5615), abs=1e-4)


def test_one_seed_has_no_spread_and_no_worst() -> None:
    figures = of_variant([trial(log(loss=[1.0]))], [57.0])
    assert np.isnan([figures.spread.mean, figures.spread.low, figures.worst_rouge_l]).all()
    assert figures.worst_seed is None
