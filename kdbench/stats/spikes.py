"""Where a training's loss spiked."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from kdbench.stats.intervals import Floats

SPIKE_Z = 6.0
TREND_HALF_WIDTH = 10
"""Steps on either side of the running median: a spike lasts at most this long."""
SCALE_HALF_WIDTH = 25
SCALE_FLOOR = 1e-3
"""Smallest noise, as a share of the local loss, that a spike is measured in."""


@dataclass(frozen=True)
class Spike:
    """A run of steps whose loss stands out.

    Attributes:
        step: the step it began at, as the log counts them (from 1).
        length: its steps.
        z: the largest robust z in it.
        loss: the loss there.
    """

    step: int
    length: int
    z: float
    loss: float


def find_spikes(steps: ArrayLike, loss: ArrayLike) -> list[Spike]:
    """The loss spikes of a training: runs of steps whose robust z exceeds 6.

    z = (loss - running median) / noise. The window of the median, 10 steps to either side, shrinks
    symmetrically at the ends; so the median of any monotone stretch is its own middle, and a trend,
    however steep or curved, leaves no residual. The noise is 1.4826 x the median absolute deviation
    of the changes from step to step / sqrt(2), over 25 steps to either side (noise falls with the
    loss), and at least 0.1 % of the local loss; not the deviation of the residuals, most of which
    are zero on a steep stretch. Adjacent steps are one spike; one that lasts longer than 10 steps
    is a new level and not counted. The first and the last step have no neighbours on both sides
    and are never spikes. Non-finite losses are left out: they are divergence.

    Args:
        steps: [n], the steps' numbers.
        loss: [n], their losses.
    """
    numbers, values = np.asarray(steps), np.asarray(loss, dtype=np.float64)
    finite = np.isfinite(values)
    numbers, values = numbers[finite], values[finite]
    z = robust_z(values)
    above = np.concatenate([[False], z > SPIKE_Z, [False]])
    starts = np.flatnonzero(above[1:] & ~above[:-1])
    ends = np.flatnonzero(~above[1:] & above[:-1])
    found = []
    for start, end in zip(starts, ends, strict=True):
        peak = start + int(np.argmax(z[start:end]))
        found.append(
            Spike(int(numbers[start]), int(end - start), float(z[peak]), float(values[peak]))
        )
    return found


def robust_z(values: Floats) -> Floats:
    """[n], how far each finite loss lies above its running median, in units of local noise."""
    if len(values) < 3:
        return np.zeros(len(values))
    trend = _running_median(values)
    changes = np.diff(values)
    changes = np.abs(changes - _running_median(changes))
    mirrored = np.pad(changes, (SCALE_HALF_WIDTH, SCALE_HALF_WIDTH + 1), mode="symmetric")
    windows = sliding_window_view(mirrored, 2 * SCALE_HALF_WIDTH + 1)
    scale = 1.4826 * np.median(windows, axis=-1) / np.sqrt(2)
    noise = np.maximum(scale, SCALE_FLOOR * np.abs(trend))
    residuals = values - trend
    with np.errstate(divide="ignore", invalid="ignore"):
        z = residuals / noise
    return np.where(residuals == 0, 0.0, z)


def _running_median(values: Floats) -> Floats:
    """Medians of centred windows that shrink symmetrically towards both ends."""
    half = min(TREND_HALF_WIDTH, (len(values) - 1) // 2)
    inner = np.median(sliding_window_view(values, 2 * half + 1), axis=-1)
    left = [np.median(values[: 2 * t + 1]) for t in range(half)]
    right = [np.median(values[-2 * t - 1 :]) for t in reversed(range(half))]
    return np.concatenate([left, inner, right])
