"""All numbers of a study, computed once: its report, its plots and its tables are made of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kdbench.base.registry import REFERENCES
from kdbench.report.table import AVERAGE
from kdbench.runs.results import TrialResult
from kdbench.runs.scores import METRICS
from kdbench.stats.intervals import Interval, over_seeds
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
    rows: list[dict[str, Any]] = []
    for student, board in study.boards.items():
        for variant in (*variants_of(design), *REFERENCES):
            if variant not in board.trials:
                continue
            cell = cells.get(variant)
            role = "grid" if cell else "reference" if variant in REFERENCES else "comparator"
            where = dict(zip(design.factors, cell.setting, strict=True)) if cell else {}
            known: dict[str, Any] = {"student": student, "role": role, "variant": variant}
            for name in design.factors:
                known[name] = where.get(name)
            known[design.parameter] = cell.value if cell else None
            group = board.trials[variant]
            counts = {
                "n_seeds": len({trial.seed for trial in group}),
                "n_diverged": sum(trial.diverged for trial in group),
            }
            for name, metric, interval in _figures(study, student, variant):
                limits = {"mean": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
                rows.append(known | {"set": name, "metric": metric} | limits | counts)
    return pd.DataFrame(rows)


def answers_frame(differences: list[Difference], question: str) -> pd.DataFrame:
    """One row per difference, its question first."""
    frame = pd.DataFrame([asdict(item) for item in differences])
    frame.insert(0, "question", question)
    return frame


def best_frame(study: Study, found: list[Agreement]) -> pd.DataFrame:
    """One row per (student, metric, dimension, level, value): how often the value is best there."""
    rows = [
        {
            "student": item.student,
            "metric": item.metric,
            "dimension": item.dimension,
            "level": level,
            study.design.parameter: value,
            "observed_best": value == best,
            "best_share": item.shares[place, column_],
            "same_best": item.same,
            "least_same_pair": item.least,
            "kendall_w": item.w.mean,
            "w_low": item.w.low,
            "w_high": item.w.high,
            "change": None if item.change is None else item.change.mean,
            "change_low": None if item.change is None else item.change.low,
            "change_high": None if item.change is None else item.change.high,
            "verdict": item.verdict,
        }
        for item in found
        for place, (level, best) in enumerate(zip(item.levels, item.best, strict=True))
        for column_, value in enumerate(study.common_values)
    ]
    return pd.DataFrame(rows)


def first_distance(trial: TrialResult, name: str) -> float:
    """The initial student's distance to the teacher, which every log begins with."""
    values = column(trial.log, name)[1]
    return float(values[0]) if len(values) else np.nan


def _figures(study: Study, student: str, variant: str) -> Iterator[tuple[str, str, Interval]]:
    board = study.boards[student]
    for name in (AVERAGE, *board.sets):
        for metric in METRICS:
            if row := board.rows.get((variant, name, metric)):
                yield name, metric, Interval(row.mean, row.ci_low, row.ci_high)
    if variant in REFERENCES:
        return
    trials = study.trials(student, variant)

    def over(figure: Callable[[TrialResult], float]) -> Interval:
        return over_seeds(study.grids[student].by_seed([figure(trial) for trial in trials]))

    for metric in DISTANCES:
        yield DEV, metric, over(partial(_last, name=metric))
    figures = board.stability[variant]
    by_trial = {(own.seed, own.init_seed): own for own in figures.trials}
    for metric in STABILITY:
        yield (
            TRAINING,
            metric,
            over(lambda t, name=metric: getattr(by_trial[t.seed, t.init_seed], name)),  # type: ignore[misc]
        )
    yield TRAINING, SPREAD, figures.spread


def _last(trial: TrialResult, name: str) -> float:
    values = column(trial.log, name)[1]
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else np.nan
