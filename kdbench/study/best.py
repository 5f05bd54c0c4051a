"""Whether sets, settings and students have the same best value, over resampled seeds and prompts.

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
        verdict: whether it is the same: yes, no, cannot tell.
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
    if len(study.common_values) < 2:
        return []
    observed, drawn = _figures(study, metric)
    found = []
    for place, student in enumerate(study.students):
        own = observed[:, place], drawn[:, :, place]
        for dimension, members in _dimensions(study):
            levels, about = tuple(members), (student, metric, dimension)
            figures = [_by_level(figures, list(members.values())) for figures in own]
            found.append(_agreement(study, about, levels, *figures))
    if len(study.students) > 1:
        averaged = observed.mean(axis=(-2, -4)), drawn.mean(axis=(-2, -4))
        about = "all", metric, STUDENT
        found.append(_agreement(study, about, tuple(study.students), *averaged))
    return found


def _figures(study: Study, metric: str) -> tuple[Floats, Floats]:
    """[sets, students, settings, values] as observed, and [draws, ...] as resampled."""
    values, settings = study.common_values, study.design.settings
    variants = [study.variant_at[setting, value] for setting in settings for value in values]
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


Members = tuple[Sequence[int], Sequence[int]]
"""The places of a level's sets and of its settings."""


def _dimensions(study: Study) -> Iterator[tuple[str, dict[str, Members]]]:
    """The sets and every factor, with the members of each level; two levels at least."""
    settings = study.design.settings
    every_set, every_setting = range(len(study.sets)), range(len(settings))
    sets = {name: ([place], every_setting) for place, name in enumerate(study.sets)}
    found: list[tuple[str, dict[str, Members]]] = [("set", dict(sets))]
    for place, (factor, levels) in enumerate(study.design.factors.items()):
        own = {level: [i for i in every_setting if settings[i][place] == level] for level in levels}
        taken = {level: (every_set, members) for level, members in own.items() if members}
        found.append((factor, dict(taken)))
    return ((name, levels) for name, levels in found if len(levels) > 1)


def _by_level(figures: Floats, members: Sequence[Members]) -> Floats:
    """[..., levels, values] from [..., sets, settings, values]."""
    means = [
        figures[..., list(sets), :, :][..., list(settings), :].mean(axis=(-3, -2))
        for sets, settings in members
    ]
    return np.stack(means, axis=-2)


def _agreement(
    study: Study,
    about: tuple[str, str, str],
    levels: tuple[str, ...],
    observed: Floats,
    drawn: Floats,
) -> Agreement:
    """The agreement of [levels, values] as observed, and [draws, levels, values] as resampled."""
    same, least = share_with_one_best(drawn), least_shared_best(drawn)
    low, high = percentile(kendall_w(drawn))
    differs = least <= (1 - SURE) / math.comb(len(levels), 2)
    verdict = YES if same >= SURE else NO if differs else OPEN
    return Agreement(
        *about,
        levels=levels,
        best=tuple(study.common_values[place] for place in observed.argmax(axis=-1)),
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
    estimate, draws = (
        np.diff(numbers[figures.argmax(axis=-1)], axis=-1)[..., 0] for figures in (observed, drawn)
    )
    limits = (float(limit) for limit in percentile(draws))
    return None if math.isnan(estimate) else Interval(float(estimate), *limits)
