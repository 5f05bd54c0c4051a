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
from kdbench.stats.selection import AVERAGE, by_seed, optimistic
from kdbench.stats.tiers import LEVEL, holm_list
from kdbench.study.design import Comparator, Setting, StudyCell
from kdbench.study.read import Study, Tables

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
    p_holm: float
    verdict: str


def tuned_over_fixed(study: Study, student: str, metric: str) -> list[Difference]:
    """Tuned per set minus each fixed value, for each set and the average of the sets.

    The verdict says whether the fixed value comes within the interval: `no` where the interval of
    the difference lies above 0.
    """
    found = []
    within = [_setting(study, student, metric, setting) for setting in study.design.settings]
    everything = _Tuned(study, student, metric, study.cells())
    for value in study.design.values:
        own = [item for item in within if value in item.values]
        fixed = _Tuned(study, student, metric, study.cells(value=value))
        for name in (AVERAGE, *study.sets):
            for scope, differences, claimed in (
                (
                    WITHIN,
                    np.mean([item.over_value(name, value) for item in own], axis=0),
                    float(np.mean([item.claimed_over_value(name, value) for item in own])),
                ),
                (
                    OVER_ALL,
                    everything.per_set[name] - fixed.per_set[name],
                    float(everything.claimed[name] - fixed.claimed[name]),
                ),
            ):
                item = _difference(differences, student, metric, scope, name, value, claimed)
                outside = YES if not item.ci_low > 0 else NO
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
    everything = _Tuned(study, student, metric, study.cells())
    within = {
        setting: _setting(study, student, metric, setting) for setting in study.design.settings
    }
    found = []
    for comparator in study.design.comparators:
        for scope, differences, claimed in (
            (WITHIN, *_within(study, student, metric, comparator, within)),
            (OVER_ALL, *_over_all(study, student, metric, comparator, everything)),
        ):
            found.append(
                _difference(differences, student, metric, scope, AVERAGE, comparator.label, claimed)
            )
    return list(_corrected(found))


class _Tuned:
    """Some cells' scores, and what choosing among them is worth, by seed and by set."""

    def __init__(self, study: Study, student: str, metric: str, cells: Sequence[StudyCell]) -> None:
        names = [cell.variant for cell in cells]
        self.values = [cell.value for cell in cells]
        tables = study.scores(student, names, metric)
        generator = np.random.default_rng(derive("study", student, metric, *names))
        found = by_seed(tables, splits=SPLITS, generator=generator)
        peeking = optimistic(tables)
        self.per_set, self.on_average, self.fixed = found.per_set, found.on_average, found.fixed
        self.claimed, self.claimed_on_average = peeking.per_set, peeking.on_average
        self.fixed_means = peeking.fixed

    def over_value(self, name: str, value: str) -> Floats:
        """[seeds], tuned per set minus one value."""
        difference: Floats = self.per_set[name] - self.fixed[name][:, self.values.index(value)]
        return difference

    def claimed_over_value(self, name: str, value: str) -> float:
        return float(self.claimed[name] - self.fixed_means[name][self.values.index(value)])


def _setting(study: Study, student: str, metric: str, setting: Setting) -> _Tuned:
    return _Tuned(study, student, metric, study.cells(setting=setting))


def _within(
    study: Study,
    student: str,
    metric: str,
    comparator: Comparator,
    within: dict[Setting, _Tuned],
) -> tuple[Floats, float]:
    differences, claimed = [], []
    for setting in comparator.settings:
        tuned = within[setting]
        if comparator.variant is not None:
            other = _figures(study.scores(student, [comparator.variant], metric))
        else:
            place = tuned.values.index(str(comparator.value))
            other = tuned.fixed[AVERAGE][:, place]
        differences.append(tuned.on_average[AVERAGE] - other)
        claimed.append(float(tuned.claimed_on_average[AVERAGE] - other.mean()))
    return np.mean(differences, axis=0), float(np.mean(claimed))


def _over_all(
    study: Study, student: str, metric: str, comparator: Comparator, everything: _Tuned
) -> tuple[Floats, float]:
    if comparator.variant is not None:
        other = _figures(study.scores(student, [comparator.variant], metric))
        claimed = float(other.mean())
    else:
        fixed = _Tuned(study, student, metric, study.cells(value=comparator.value))
        other = fixed.on_average[AVERAGE]
        claimed = float(fixed.claimed_on_average[AVERAGE])
    mean = float(everything.claimed_on_average[AVERAGE])
    return everything.on_average[AVERAGE] - other, mean - claimed


def _figures(tables: Tables) -> Floats:
    """[seeds], the unweighted mean over sets of one variant."""
    figures: Floats = np.mean([table[0].mean(axis=-1) for table in tables.values()], axis=0)
    return figures


def _difference(
    differences: Floats,
    student: str,
    metric: str,
    scope: str,
    name: str,
    subject: str,
    claimed: float,
) -> Difference:
    values = np.where(np.abs(differences) < 1e-9, 0.0, differences)
    interval = over_seeds(values)
    effect, low, high = (float(x) for x in standardised(values))
    return Difference(
        student=student,
        metric=metric,
        scope=scope,
        set=name,
        subject=subject,
        estimate=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        optimistic=claimed,
        effect=effect,
        effect_low=low,
        effect_high=high,
        p=_p(values),
        p_holm=math.nan,
        verdict=OPEN,
    )


def _p(differences: Floats) -> float:
    """Two-sided p of the paired t-test; NaN for one seed, 1 where nothing differs."""
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _corrected(found: Sequence[Difference]) -> Iterator[Difference]:
    adjusted = holm_list(np.array([item.p for item in found]))
    for item, p in zip(found, adjusted, strict=True):
        beyond = not math.isnan(p) and p < LEVEL
        verdict = (YES if item.estimate > 0 else NO) if beyond else OPEN
        yield replace(item, p_holm=float(p), verdict=verdict)
