"""What choosing among candidates gains, without reporting on the scores that made the choice.

The largest of several noisy means is too large. So a candidate is chosen on one half of the prompts
and reported on the other, both ways round, and where there are several training seeds the seed that
is reported does not take part in the choice either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.bootstrap import percentile
from kdbench.stats.intervals import Floats, over_seeds
from kdbench.stats.ranking import Limits

Indices = NDArray[np.intp]
AVERAGE = "average"
DRAWS = 1_000
SPLITS_PER_DRAW = 4
_DECIMALS = 9
"""Two candidates that are one function differ by rounding alone; the first of equals is chosen."""


@dataclass(frozen=True)
class Selection:
    """Means of the three ways of choosing, per set and for `average`, the mean over sets.

    Every array may have a leading axis of bootstrap draws.

    Attributes:
        per_set: for each set the candidate chosen on that set, [...].
        on_average: the one candidate chosen on the mean over sets, [...].
        fixed: every candidate as it is, [..., candidates].
        picked_per_set: per set, how often each candidate was chosen, [..., candidates]; sums to 1.
        picked_on_average: how often each candidate was chosen on the mean, [..., candidates].
    """

    per_set: dict[str, Floats]
    on_average: dict[str, Floats]
    fixed: dict[str, Floats]
    picked_per_set: dict[str, Floats]
    picked_on_average: Floats


@dataclass(frozen=True)
class Gains:
    """Differences between ways of choosing, with 95 % limits; per set and for `average`.

    Attributes:
        per_set: chosen per set minus each fixed candidate, [candidates].
        on_average: chosen on the average minus each fixed candidate, [candidates].
        set_over_average: chosen per set minus chosen on the average, [].
    """

    per_set: dict[str, Limits]
    on_average: dict[str, Limits]
    set_over_average: dict[str, Limits]


def cross_fitted(
    tables: Mapping[str, Floats], *, splits: int, generator: np.random.Generator
) -> Selection:
    """What a choice is worth on prompts and trainings that did not make it.

    In each of `splits` random halvings of every set's prompts, candidates are chosen on one half
    and reported on the other, both ways round (cross-fitting). With two or more training seeds,
    each seed is reported with the candidate that the others chose: a choice made on the training
    that is reported would keep that training's luck. With one seed it does keep it, so the figure
    then speaks of these trained students and not of their settings.

    Args:
        tables: per set, scores [candidates, seeds, samples]; candidates and seeds are the same in
            all sets, and there are two samples at least.
        splits: how many random halvings are averaged.
        generator: its only source of randomness.
    """
    first = next(iter(tables.values()))
    counts = {name: np.ones((splits, table.shape[-1])) for name, table in tables.items()}
    seeds = np.full((splits, first.shape[1]), 1 / first.shape[1])
    return _mean([_halved(tables, counts, seeds, generator)], axis=(0, 1))


def by_seed(
    tables: Mapping[str, Floats], *, splits: int, generator: np.random.Generator
) -> Selection:
    """`cross_fitted` for each training seed, so that what it gains can be paired by seed.

    Args:
        tables: as for `cross_fitted`.
        splits: how many random halvings are averaged.
        generator: its only source of randomness.

    Returns:
        Arrays with a leading axis [seeds]; their means estimate what `cross_fitted` does.
    """
    n_seeds = next(iter(tables.values())).shape[1]

    def of(seed: int) -> Selection:
        counts = {name: np.ones((splits, table.shape[-1])) for name, table in tables.items()}
        alone = np.tile(np.eye(n_seeds)[seed], (splits, 1))
        return _mean([_halved(tables, counts, alone, generator)], axis=(0, 1))

    seeds = [of(seed) for seed in range(n_seeds)]
    return _joined(seeds, lambda arrays: np.stack(arrays))


def optimistic(tables: Mapping[str, Floats]) -> Selection:
    """The choice that is made and reported on the same scores; biased upwards.

    Args:
        tables: as for `cross_fitted`.
    """
    fixed = {name: np.asarray(table).mean(axis=(1, 2)) for name, table in tables.items()}
    mean = np.mean(list(fixed.values()), axis=0)
    chosen = {name: _best(values) for name, values in fixed.items()}
    common = _best(mean)
    candidates = len(mean)
    return Selection(
        per_set=_averaged({name: fixed[name][chosen[name]] for name in fixed}),
        on_average=_averaged({name: values[common] for name, values in fixed.items()}),
        fixed=_averaged(fixed),
        picked_per_set={name: np.eye(candidates)[choice] for name, choice in chosen.items()},
        picked_on_average=np.eye(candidates)[common],
    )


def bootstrapped(
    tables: Mapping[str, Floats], *, generator: np.random.Generator, draws: int = DRAWS
) -> Selection:
    """`cross_fitted` in each draw of the hierarchical bootstrap, the choice made anew every time.

    Seeds and prompts are drawn with replacement, the prompts shared by seeds and candidates. Copies
    of one prompt go to one half, and copies of one seed are left out together, so that a draw peeks
    no more than the estimate does. Where no other seed was drawn, all others choose.

    Args:
        tables: as for `cross_fitted`.
        generator: its only source of randomness.
        draws: how many.

    Returns:
        Arrays with a leading axis [draws].
    """
    n_seeds = next(iter(tables.values())).shape[1]
    seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws) / n_seeds
    counts = {}
    for name, table in tables.items():
        n = table.shape[-1]
        counts[name] = generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    halved = [_halved(tables, counts, seeds, generator) for _ in range(SPLITS_PER_DRAW)]
    return _mean(halved, axis=0)


def gains(
    tables: Mapping[str, Floats],
    *,
    splits: int,
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> tuple[Selection, Gains]:
    """The cross-fitted selection, and its differences with 95 % intervals.

    With two or more training seeds the intervals are Student-t over seeds, each seed reported with
    what the others chose: a bootstrap of so few trainings is too narrow, and finds a gain among
    equal candidates several times too often. With one seed they are the bootstrap's, over prompts.

    Args:
        tables: as for `cross_fitted`.
        splits: how many random halvings the estimate averages.
        generator: its only source of randomness.
        draws: of the bootstrap.
    """
    if next(iter(tables.values())).shape[1] > 1:
        parts = by_seed(tables, splits=splits, generator=generator)
        found = _mean([parts], axis=(0, 1))
        return found, _gains(found, parts, _student)
    found = cross_fitted(tables, splits=splits, generator=generator)
    drawn = bootstrapped(tables, generator=generator, draws=draws)
    return found, _gains(found, drawn, percentile)


def _gains(
    found: Selection, parts: Selection, interval: Callable[[Floats], tuple[Floats, Floats]]
) -> Gains:
    """Differences of the estimate, and the interval of those of its parts: seeds, or draws."""

    def over_fixed(estimate: dict[str, Floats], way: dict[str, Floats]) -> dict[str, Limits]:
        return {
            name: Limits(
                _difference(estimate[name], found.fixed[name]),
                *interval(_difference(way[name][:, None], values)),
            )
            for name, values in parts.fixed.items()
        }

    return Gains(
        over_fixed(found.per_set, parts.per_set),
        over_fixed(found.on_average, parts.on_average),
        {
            name: Limits(
                _difference(found.per_set[name], found.on_average[name]),
                *interval(_difference(parts.per_set[name], parts.on_average[name])),
            )
            for name in found.per_set
        },
    )


def _difference(minuend: Floats, subtrahend: Floats) -> Floats:
    """Zero where rounding alone is left: it must not lie above its interval."""
    difference = minuend - subtrahend
    return np.where(np.abs(difference) < 10.0**-_DECIMALS, 0.0, difference)


def _student(parts: Floats) -> tuple[Floats, Floats]:
    """Student-t limits over the first axis."""
    columns = [over_seeds(column) for column in parts.reshape(len(parts), -1).T]
    low, high = ([getattr(item, end) for item in columns] for end in ("low", "high"))
    return np.reshape(low, parts.shape[1:]), np.reshape(high, parts.shape[1:])


def _halved(
    tables: Mapping[str, Floats],
    counts: Mapping[str, Floats],
    seeds: Floats,
    generator: np.random.Generator,
) -> Selection:
    """One random halving per draw.

    Args:
        tables: per set, [candidates, seeds, samples].
        counts: per set, how often each sample stands in each draw, [draws, samples].
        seeds: the weight of each seed in each draw, [draws, seeds]; sums to 1.
        generator: of the halvings.

    Returns:
        Arrays with a leading axis [draws].
    """
    choosing = _others(seeds)
    candidates = next(iter(tables.values())).shape[0]
    means: dict[str, Floats] = {}
    sums: dict[str, Floats] = {}
    sizes: dict[str, int] = {}
    for name, table in tables.items():
        halves = _halves(counts[name], generator)
        sizes[name] = table.shape[-1]
        sums[name] = np.einsum("csn,dhn->dhcs", table, halves, optimize=True)
        in_half = np.maximum(halves.sum(axis=-1), 1)[..., None, None]
        means[name] = np.einsum("dhct,dst->dhsc", sums[name] / in_half, choosing, optimize=True)
    common = _best(np.mean(list(means.values()), axis=0))
    chosen = {name: _best(values) for name, values in means.items()}

    def reported(name: str, choice: Indices) -> Floats:
        other = np.take_along_axis(sums[name][:, ::-1], choice[:, :, None, :], axis=2)[:, :, 0]
        value: Floats = np.einsum("dhs,ds->d", other, seeds) / sizes[name]
        return value

    def picked(choice: Indices) -> Floats:
        share: Floats = np.einsum("dhsc,ds->dc", np.eye(candidates)[choice], seeds) / 2
        return share

    return Selection(
        per_set=_averaged({name: reported(name, chosen[name]) for name in tables}),
        on_average=_averaged({name: reported(name, common) for name in tables}),
        fixed=_averaged(
            {name: np.einsum("dhcs,ds->dc", sums[name], seeds) / sizes[name] for name in tables}
        ),
        picked_per_set={name: picked(chosen[name]) for name in tables},
        picked_on_average=picked(common),
    )


def _halves(counts: Floats, generator: np.random.Generator) -> Floats:
    """[draws, 2, samples]: the counts of a random half of the samples, and of the other half."""
    draws, n = counts.shape
    drawn = generator.random((draws, n))
    first = drawn < np.sort(drawn, axis=1)[:, n // 2, None]
    return np.stack([counts * first, counts * ~first], axis=1)


def _others(seeds: Floats) -> Floats:
    """[draws, s, t]: the weight that seed t has in the choice for seed s; itself only if alone."""
    n = seeds.shape[1]
    if n == 1:
        return np.ones((len(seeds), 1, 1))
    apart = ~np.eye(n, dtype=bool)
    weights = np.where(apart, seeds[:, None, :], 0.0)
    weights = np.where(weights.sum(axis=-1, keepdims=True) == 0, 1.0 * apart, weights)
    normalised: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return normalised


def _mean(selections: Sequence[Selection], axis: int | tuple[int, ...]) -> Selection:
    """The mean of several selections, stacked along a new first axis."""
    return _joined(selections, lambda arrays: np.asarray(np.mean(arrays, axis=axis)))


def _joined(
    selections: Sequence[Selection], mean: Callable[[Sequence[Floats]], Floats]
) -> Selection:
    def each(of: Callable[[Selection], dict[str, Floats]]) -> dict[str, Floats]:
        return {name: mean([of(item)[name] for item in selections]) for name in of(selections[0])}

    return Selection(
        per_set=each(lambda item: item.per_set),
        on_average=each(lambda item: item.on_average),
        fixed=each(lambda item: item.fixed),
        picked_per_set=each(lambda item: item.picked_per_set),
        picked_on_average=mean([item.picked_on_average for item in selections]),
    )


def _averaged(figures: dict[str, Floats]) -> dict[str, Floats]:
    return figures | {AVERAGE: np.asarray(np.mean(list(figures.values()), axis=0))}


def _best(means: Floats) -> Indices:
    """The index of the best along the last axis, the first of equals."""
    return np.asarray(np.round(means, _DECIMALS).argmax(axis=-1))
