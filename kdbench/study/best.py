"""Whether the best value is the same across sets, settings and students, over resamplings.

All cells of all students share the draws: the students of one seed met the same batches, and all
answered the same prompts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.base.seeds import derive
from kdbench.stats.agreement import (
    best_shares,
    kendall_w,
    least_shared_best,
    share_with_one_best,
)
from kdbench.stats.bootstrap import percentile, resample
from kdbench.stats.intervals import Floats, Interval
from kdbench.study.answers import NO, OPEN, YES
from kdbench.study.read import Study

SURE = 0.95
"""Share of draws that counts as an answer: yes where one value is best at all levels in so many, no
where two levels have a best in common in fewer than the rest, divided by the number of pairs."""
STUDENT = "student"
"""The dimension whose levels are the student sizes."""


@dataclass(frozen=True)
class Agreement:
    """The best value along one dimension: the sets, the levels of a factor, the students.

    Attributes:
        student: whose, or `all` where the students are the levels.
        best: the observed best value of each level.
        shares: [levels, values], how often each value is best over the draws.
        same: share of draws in which one value is best at all levels.
        least: the same of the two levels that have it least.
        w: Kendall's W of the orders of the values, with percentile limits.
        change: the best value of the last level minus that of the first, with percentile limits;
            None where the values are no numbers or there are more than two levels.
        verdict: yes, no, cannot tell: is it the same?
    """

    student: str
    metric: str
    dimension: str
    levels: tuple[str, ...]
    best: tuple[str, ...]
    shares: Floats
    same: float
    least: float
    w: Interval
    change: Interval | None
    verdict: str


def best_values(study: Study, metric: str) -> list[Agreement]:
    """The agreement along every dimension that has two levels at least.

    Everything is averaged over the other dimensions. Only values that the objective takes in every
    setting take part; fewer than two leave nothing to compare.
    """
    values = study.common_values
    if len(values) < 2:
        return []
    observed, drawn = _figures(study, metric)
    found = []
    for place, student in enumerate(study.students):
        for dimension, levels, members in _dimensions(study):
            found.append(
                _agreement(
                    study,
                    metric,
                    student,
                    dimension,
                    levels,
                    _by_level(observed[:, place], members),
                    _by_level(drawn[:, :, place], members),
                )
            )
    if len(study.students) > 1:
        levels = tuple(study.students)
        averaged = observed.mean(axis=(-2, -4)), drawn.mean(axis=(-2, -4))
        found.append(_agreement(study, metric, "all", STUDENT, levels, *averaged))
    return found


def _figures(study: Study, metric: str) -> tuple[Floats, Floats]:
    """[sets, students, settings, values] as observed, and [draws, ...] as resampled."""
    values, settings = study.common_values, study.design.settings
    names = {(cell.setting, cell.value): cell.variant for cell in study.design.cells}
    variants = [names[setting, value] for setting in settings for value in values]
    by_student = [study.scores(student, variants, metric) for student in study.students]
    strata = [np.concatenate([tables[name] for tables in by_student]) for name in study.sets]
    generator = np.random.default_rng(derive("study", "best", metric, *study.sets))
    found = resample(strata, generator)
    shape = (len(by_student), len(settings), len(values))
    observed = np.array([table.mean(axis=(1, 2)).reshape(shape) for table in strata])
    drawn = np.stack(
        [
            np.einsum("dks,ds->dk", table, found.weights).reshape(-1, *shape)
            for table in found.values
        ],
        axis=1,
    )
    return observed, drawn


Members = Sequence[tuple[Sequence[int], Sequence[int]]]
"""For each level the places of its sets and of its settings."""


def _dimensions(study: Study) -> Iterator[tuple[str, tuple[str, ...], Members]]:
    """The sets and every factor, with two levels at least."""
    every_set = range(len(study.sets))
    settings = study.design.settings
    if len(study.sets) > 1:
        yield "set", tuple(study.sets), [([place], range(len(settings))) for place in every_set]
    for place, (factor, levels) in enumerate(study.design.factors.items()):
        members = [
            [index for index, setting in enumerate(settings) if setting[place] == level]
            for level in levels
        ]
        kept = [(level, own) for level, own in zip(levels, members, strict=True) if own]
        if len(kept) > 1:
            yield factor, tuple(level for level, _ in kept), [(every_set, own) for _, own in kept]


def _by_level(figures: Floats, members: Members) -> Floats:
    """[..., levels, values] from [..., sets, settings, values]."""
    means = [
        figures[..., list(sets), :, :][..., list(settings), :].mean(axis=(-3, -2))
        for sets, settings in members
    ]
    return np.stack(means, axis=-2)


def _agreement(
    study: Study,
    metric: str,
    student: str,
    dimension: str,
    levels: tuple[str, ...],
    observed: Floats,
    drawn: Floats,
) -> Agreement:
    values = study.common_values
    same, least = share_with_one_best(drawn), least_shared_best(drawn)
    low, high = percentile(kendall_w(drawn))
    differs = least <= (1 - SURE) / math.comb(len(levels), 2)
    verdict = YES if same >= SURE else NO if differs else OPEN
    return Agreement(
        student=student,
        metric=metric,
        dimension=dimension,
        levels=levels,
        best=tuple(values[place] for place in observed.argmax(axis=-1)),
        shares=best_shares(drawn),
        same=same,
        least=least,
        w=Interval(float(kendall_w(observed)), float(low), float(high)),
        change=_change(study, observed, drawn),
        verdict=verdict if len(study.seeds) > 1 else OPEN,
    )


def _change(study: Study, observed: Floats, drawn: Floats) -> Interval | None:
    if not study.design.numeric or observed.shape[-2] != 2:
        return None
    numbers = np.array([float(value) for value in study.common_values])

    def of(figures: Floats) -> Floats:
        best = numbers[figures.argmax(axis=-1)]
        change: Floats = best[..., -1] - best[..., 0]
        return change

    limits = (float(limit) for limit in percentile(of(drawn)))
    estimate = float(of(observed))
    return None if math.isnan(estimate) else Interval(estimate, *limits)
