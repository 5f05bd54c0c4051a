"""Whether tuning a parameter pays, and whether the family beats its special cases, by seed.

A tuned value is always chosen on other prompts and other trainings than it is reported on
(`kdbench.stats.selection`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from kdbench.base.seeds import derive
from kdbench.stats.intervals import Floats, over_seeds
from kdbench.stats.paired import standardised
from kdbench.stats.selection import AVERAGE, Selection, by_seed, optimistic
from kdbench.stats.tiers import LEVEL, holm_list
from kdbench.study.design import Setting
from kdbench.study.read import Study

SPLITS = 40
"""Random halvings of the prompts that a tuned figure averages."""
WITHIN, OVER_ALL = "within settings", "over all"
"""The parameter alone is chosen, in each setting, and settings averaged; or all of a cell is."""
YES, NO, OPEN = "yes", "no", "cannot tell"


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95 % Student-t interval over training seeds.

    Attributes:
        scope: `within settings` or `over all`.
        set: an evaluation set, or `average`.
        subject: what is subtracted: a value of the parameter, or a comparator.
        optimistic: the difference that tuning on the reported scores themselves would have claimed.
        effect: in standard deviations over seeds, with its limits.
        p_holm: Holm-corrected over the comparisons of one student and metric; NaN where the
            question is not asked by tests.
        verdict: yes, no, cannot tell.
    """

    student: str
    metric: str
    scope: str
    set: str
    subject: str
    estimate: float
    ci_low: float
    ci_high: float
    optimistic: float
    effect: float
    effect_low: float
    effect_high: float
    p: float
    p_holm: float = math.nan
    verdict: str = OPEN


def tuned_over_fixed(study: Study, student: str, metric: str) -> list[Difference]:
    """Tuned per set minus each fixed value, for each set and the average of the sets.

    The verdict says whether the fixed value comes within the interval: `no` where the interval of
    the difference lies above 0.
    """
    asked = _Asked(study, student, metric)
    within, everything = [asked.tuned(setting) for setting in study.design.settings], asked.tuned()
    found = []
    for value in study.design.values:
        fixed = asked.tuned(value=value)
        own = [(tuned, tuned.values.index(value)) for tuned in within if value in tuned.values]
        for name in (AVERAGE, *study.sets):
            by_setting = [
                [way.per_set[name] - way.fixed[name][..., place] for way in tuned.ways]
                for tuned, place in own
            ]
            whole = [
                way.per_set[name] - other.per_set[name]
                for way, other in zip(everything.ways, fixed.ways, strict=True)
            ]
            for scope, ways in ((WITHIN, _averaged(by_setting)), (OVER_ALL, whole)):
                item = asked.difference(scope, name, value, ways)
                outside = NO if item.ci_low > 0 else YES
                verdict = OPEN if math.isnan(item.ci_low) else outside
                found.append(replace(item, verdict=verdict))
    return found


def family_over_special(study: Study, student: str, metric: str) -> list[Difference]:
    """The tuned family minus each comparator, on the average over the sets.

    `within settings`: the parameter is chosen, once for all sets, in each setting whose special
    case the comparator is, and the differences are averaged over these settings. `over all`: a
    whole cell is chosen from the grid. A comparator that is a value of the parameter has the rest
    of its cell chosen in the same way.
    """
    asked = _Asked(study, student, metric)
    within = {setting: asked.tuned(setting) for setting in study.design.settings}
    everything = asked.tuned()
    found = []
    for comparator in study.design.comparators:
        if comparator.variant is not None:
            figures = asked.figures(comparator.variant)
            whole = everything.over(figures, figures.mean())
            own = [figures for _ in comparator.settings]
        else:
            value = str(comparator.value)
            fixed = asked.tuned(value=value)
            whole = everything.over(*(way.on_average[AVERAGE] for way in fixed.ways))
            own = [within[setting].at(value) for setting in comparator.settings]
        by_setting = [
            within[setting].over(other, other.mean())
            for setting, other in zip(comparator.settings, own, strict=True)
        ]
        for scope, ways in ((WITHIN, _averaged(by_setting)), (OVER_ALL, whole)):
            found.append(asked.difference(scope, AVERAGE, comparator.label, ways))
    return list(_corrected(found))


@dataclass(frozen=True)
class _Tuned:
    """What choosing among some cells is worth.

    Attributes:
        values: of the cells.
        ways: chosen and reported apart, with a first axis [seeds]; and both on the same scores.
    """

    values: list[str]
    ways: tuple[Selection, Selection]

    def at(self, value: str) -> Floats:
        """[seeds], the average of one value as it is."""
        figures: Floats = self.ways[0].fixed[AVERAGE][:, self.values.index(value)]
        return figures

    def over(self, by_seed: Floats, mean: Floats) -> list[Floats]:
        """Chosen on the average minus another figure, in both ways."""
        others = by_seed, mean
        return [
            way.on_average[AVERAGE] - other for way, other in zip(self.ways, others, strict=True)
        ]


@dataclass(frozen=True)
class _Asked:
    """A study's scores of one student in one metric."""

    study: Study
    student: str
    metric: str

    def tuned(self, setting: Setting | None = None, value: str | None = None) -> _Tuned:
        """What choosing among the cells of one setting, of one value, or all is worth."""
        cells = self.study.cells(setting, value)
        names = [cell.variant for cell in cells]
        tables = self.study.scores(self.student, names, self.metric)
        generator = np.random.default_rng(derive("study", self.student, self.metric, *names))
        apart = by_seed(tables, splits=SPLITS, generator=generator)
        return _Tuned([cell.value for cell in cells], (apart, optimistic(tables)))

    def figures(self, variant: str) -> Floats:
        """[seeds], the unweighted mean over sets of one variant."""
        tables = self.study.scores(self.student, [variant], self.metric)
        figures: Floats = np.mean([table[0].mean(axis=-1) for table in tables.values()], axis=0)
        return figures

    def difference(self, scope: str, name: str, subject: str, ways: Sequence[Floats]) -> Difference:
        """The difference of [seeds] values, and what choosing on the same scores would claim."""
        values, claimed = np.where(np.abs(ways[0]) < 1e-9, 0.0, ways[0]), float(ways[1])
        interval = over_seeds(values)
        effect, effect_low, effect_high = (float(figure) for figure in standardised(values))
        return Difference(
            student=self.student,
            metric=self.metric,
            scope=scope,
            set=name,
            subject=subject,
            estimate=interval.mean,
            ci_low=interval.low,
            ci_high=interval.high,
            optimistic=claimed,
            effect=effect,
            effect_low=effect_low,
            effect_high=effect_high,
            p=_p(values),
        )


def _averaged(by_setting: Sequence[Sequence[Floats]]) -> list[Floats]:
    """The mean over settings, in both ways."""
    return [np.mean(figures, axis=0) for figures in zip(*by_setting, strict=True)]


def _p(differences: Floats) -> float:
    """Two-sided p of the paired t-test; NaN for one seed, 1 where nothing differs."""
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _corrected(found: Sequence[Difference]) -> Iterator[Difference]:
    adjusted = holm_list(np.array([item.p for item in found]))
    for item, p in zip(found, adjusted.tolist(), strict=True):
        beyond = YES if item.estimate > 0 else NO
        yield replace(item, p_holm=p, verdict=beyond if p < LEVEL else OPEN)
