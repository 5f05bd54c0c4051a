"""All numbers of a study, computed once: its report, its plots and its tables are made of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kdbench.base.registry import REFERENCES
from kdbench.report.table import AVERAGE
from kdbench.runs.results import TrialResult
from kdbench.runs.scores import METRICS
from kdbench.stats.intervals import Floats, Interval, over_seeds
from kdbench.stats.stability import column
from kdbench.study.answers import Difference, family_over_special, tuned_over_fixed
from kdbench.study.best import Agreement, best_values
from kdbench.study.read import Study, variants_of

DEV, TRAINING = "dev", "training"
"""Stand in the column `set` for figures of the diagnostics' batch and of the training log."""
DISTANCES = ("forward_kl", "reverse_kl", "tvd", "student_entropy")
STABILITY = ("clipped_share", "loss_spikes", "grad_norm_cv", "grad_norm_p99")
SPREAD = "rouge_l_sd"
SAMPLED, GREEDY = "rouge_l", "rouge_l_greedy"


@dataclass(frozen=True)
class Answers:
    """The tidy table of a study, and what answers its questions, by sampled and greedy ROUGE-L."""

    frame: pd.DataFrame
    fixed: list[Difference]
    special: list[Difference]
    best: list[Agreement]

    @property
    def sampled_best(self) -> list[Agreement]:
        """The agreement by sampled ROUGE-L, which is what people are told."""
        return [item for item in self.best if item.metric == SAMPLED]


def collect(study: Study) -> Answers:
    """Computes everything that a study reports."""
    trial = study.trials(study.students[0], study.design.cells[0].variant)[0]
    scored = {metric for _, metric in trial.values}
    metrics = [metric for metric in (SAMPLED, GREEDY) if metric in scored]
    asked = [(student, metric) for metric in metrics for student in study.students]
    return Answers(
        frame=study_frame(study),
        fixed=[item for ask in asked for item in tuned_over_fixed(study, *ask)],
        special=[item for ask in asked for item in family_over_special(study, *ask)],
        best=[item for metric in metrics for item in best_values(study, metric)],
    )


def study_frame(study: Study) -> pd.DataFrame:
    """One row per (student, variant, set, metric).

    `role` is `grid`, `comparator` or `reference`; a comparator that is a cell of the grid stands
    there. Distances to the teacher are those of the last measurement on the dev batch. The interval
    is Student-t over training seeds; of `rouge_l_sd`, the seeds' spread, chi-square.
    """
    design = study.design
    cells = {cell.variant: cell for cell in design.cells}
    nowhere = dict.fromkeys([*design.factors, design.parameter])
    rows = []
    for student, board in study.boards.items():
        for variant in (*variants_of(design), *REFERENCES):
            if variant not in board.trials:
                continue
            group, cell = board.trials[variant], cells.get(variant)
            role = "grid" if cell else "reference" if variant in REFERENCES else "comparator"
            place = (
                dict(zip(nowhere, (*cell.setting, cell.value), strict=True)) if cell else nowhere
            )
            rows += [
                {
                    "student": student,
                    "role": role,
                    "variant": variant,
                    **place,
                    "set": name,
                    "metric": metric,
                    "mean": interval.mean,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "n_seeds": len({trial.seed for trial in group}),
                    "n_diverged": sum(trial.diverged for trial in group),
                }
                for name, metric, interval in _figures(study, student, variant)
            ]
    return pd.DataFrame(rows)


def answers_frame(answers: Answers) -> pd.DataFrame:
    """One row per difference, its question first."""
    asked = {"tuned over fixed": answers.fixed, "family over special case": answers.special}
    return pd.DataFrame(
        [
            {"question": question, **asdict(item)}
            for question, found in asked.items()
            for item in found
        ]
    )


def best_frame(study: Study, found: list[Agreement]) -> pd.DataFrame:
    """One row per (student, metric, dimension, level, value): how often the value is best there."""
    unknown = Interval(np.nan, np.nan, np.nan)
    rows = [
        {
            "student": item.student,
            "metric": item.metric,
            "dimension": item.dimension,
            "level": level,
            study.design.parameter: value,
            "observed_best": value == best,
            "best_share": share,
            "same_best": item.same,
            "least_same_pair": item.least,
            "kendall_w": item.w.mean,
            "w_low": item.w.low,
            "w_high": item.w.high,
            "change": change.mean,
            "change_low": change.low,
            "change_high": change.high,
            "verdict": item.verdict,
        }
        for item in found
        for change in [item.change or unknown]
        for level, best, shares in zip(item.levels, item.best, item.shares, strict=True)
        for value, share in zip(study.common_values, shares, strict=True)
    ]
    return pd.DataFrame(rows)


def distances(trial: TrialResult, name: str) -> Floats:
    """The logged distances to the teacher, that of the initial student first."""
    return column(trial.log, name)[1]


def _figures(study: Study, student: str, variant: str) -> Iterator[tuple[str, str, Interval]]:
    board = study.boards[student]
    for name in (AVERAGE, *board.sets):
        for metric in METRICS:
            if row := board.rows.get((variant, name, metric)):
                yield name, metric, Interval(row.mean, row.ci_low, row.ci_high)
    if variant in REFERENCES:
        return
    trials, stability = study.trials(student, variant), board.stability[variant]
    of_trial = {(own.seed, own.init_seed): own for own in stability.trials}
    figures = {
        (DEV, name): [_last_finite(distances(trial, name)) for trial in trials]
        for name in DISTANCES
    } | {
        (TRAINING, name): [getattr(of_trial[own.seed, own.init_seed], name) for own in trials]
        for name in STABILITY
    }
    for key, values in figures.items():
        yield *key, over_seeds(study.grids[student].by_seed(values))
    yield TRAINING, SPREAD, stability.spread


def _last_finite(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else np.nan
