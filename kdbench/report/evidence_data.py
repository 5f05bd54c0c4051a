"""The scores that a run's evidence rests on, and what they say of its variants and of any two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdbench.base.seeds import derive
from kdbench.report.table import AVERAGE, Board
from kdbench.stats.bootstrap import Resampled, percentile, resample
from kdbench.stats.intervals import Floats, over_seeds
from kdbench.stats.paired import (
    half_width_over_samples,
    sign_flip_p,
    smallest_sign_flip_p,
    standardised,
)
from kdbench.stats.ranking import Ranks, probability_of_improvement, ranks, win_rate
from kdbench.stats.tiers import holm
from kdbench.stats.variance import crossed_half_width

METRIC = "rouge_l"
"""What the leaderboard ranks by, and so evidence.md."""
GREEDY = "rouge_l_greedy"
"""The same under greedy decoding; in the tables, not in most of the text."""


@dataclass(frozen=True)
class Evidence:
    """The ranked variants' scores on the training seeds and initial students that all have.

    The ranked `variants` stand the best first. `scores` are of `metric`, per set [variants, seeds,
    initial students, decodings, samples]; `columns` has the sets of `average`, then of each set if
    there are several; `drawn` per column the hierarchical bootstrap's draws.
    """

    board: Board
    variants: list[str]
    scores: dict[str, Floats]
    columns: dict[str, list[str]]
    drawn: dict[str, Resampled]
    metric: str = METRIC

    def strata(self, column: str) -> list[Floats]:
        """One [variants, trainings, samples] per set of a column: by seed, then initial student."""
        return [
            table.mean(axis=3).reshape(len(table), -1, table.shape[-1])
            for table in (self.scores[name] for name in self.columns[column])
        ]

    def cells(self, column: str) -> Floats:
        """[variants, seeds, initial students], the unweighted mean over a column's sets."""
        means = np.mean([table.mean(axis=-1) for table in self.strata(column)], axis=0)
        cells: Floats = means.reshape(len(means), self.n_seeds, self.n_init_seeds)
        return cells

    def figures(self, column: str) -> Floats:
        """[variants, seeds], the mean over initial students."""
        means: Floats = self.cells(column).mean(axis=2)
        return means

    @cached_property
    def means(self) -> dict[str, Floats]:
        """Per column, the mean of each variant in each draw, [draws, variants]."""
        return {column: drawn.means() for column, drawn in self.drawn.items()}

    @cached_property
    def ranks(self) -> dict[str, Ranks]:
        """Per column, how often each variant takes each rank."""
        return {column: ranks(means) for column, means in self.means.items()}

    @property
    def n_seeds(self) -> int:
        """Training seeds that all variants have."""
        return len(self.board.seeds)

    @property
    def n_init_seeds(self) -> int:
        """Initial students that all variants have."""
        return len(self.board.init_seeds)

    @property
    def n_decodings(self) -> int:
        """Decoding seeds of every student."""
        return int(next(iter(self.scores.values())).shape[3])


def collect(board: Board, metric: str = METRIC) -> Evidence | None:
    """The evidence; None where under two variants share a training seed or a metric is missing."""
    variants = list(board.stability)
    if len(variants) < 2 or not board.seeds:
        return None
    grid = board.grid
    trials = [board.trials[variant] for variant in variants]
    if any(
        (name, metric) not in one.scores for name in board.sets for own in trials for one in own
    ):
        return None
    scores = {}
    for name in board.sets:
        table = np.array([[one.scores[name, metric] for one in grid.of(own)] for own in trials])
        scores[name] = table.reshape(len(table), len(grid.seeds), -1, *table.shape[2:])
    columns = {AVERAGE: board.sets}
    if len(board.sets) > 1:
        columns |= {name: [name] for name in board.sets}
    generator = np.random.default_rng(derive("evidence", *board.sets))
    every = resample([table.mean(axis=3) for table in scores.values()], generator)
    values = dict(zip(board.sets, every.values, strict=True))
    drawn = {
        column: Resampled([values[name] for name in sets], every.weights)
        for column, sets in columns.items()
    }
    return Evidence(board, variants, scores, columns, drawn, metric)


def ranks_frame(evidence: Evidence) -> pd.DataFrame:
    """One row per (column, variant): the mean with its intervals, and where it may rank."""
    parts = []
    for column in evidence.columns:
        figures, order = evidence.figures(column), evidence.ranks[column]
        mean, students = figures.mean(axis=1), crossed_half_width(evidence.cells(column))
        low, high = percentile(evidence.means[column])
        student = [over_seeds(row) for row in figures]
        table = {
            "set": column,
            "metric": evidence.metric,
            "variant": evidence.variants,
            "mean": mean,
            "t_low": [interval.low for interval in student],
            "t_high": [interval.high for interval in student],
            "bootstrap_low": low,
            "bootstrap_high": high,
            "best_share": order.share[:, 0],
            "mean_rank": order.mean,
            "rank_low": order.low,
            "rank_high": order.high,
            "n_seeds": evidence.n_seeds,
            "students_low": mean - students,
            "students_high": mean + students,
            "n_init_seeds": evidence.n_init_seeds,
        }
        parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def comparisons_frame(evidence: Evidence) -> pd.DataFrame:
    """One row per (column, pair of variants), the higher-ranked first."""
    parts = []
    for column in evidence.columns:
        matrices, model = _matrices(evidence, column)
        table = {
            "set": column,
            "metric": evidence.metric,
            **pairs(evidence.variants, matrices),
            "smallest_p_sign_flip": smallest_sign_flip_p(evidence.n_seeds),
            "model": model,
            "n_seeds": evidence.n_seeds,
            "n_init_seeds": evidence.n_init_seeds,
        }
        parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def paired(figures: Floats, half: Floats, p: Floats) -> dict[str, Floats]:
    """By figure, [k, k]: what is known of every paired difference, the row's minus the column's.

    `figures` are [k, seeds]; of the differences, the intervals' `half` and corrected `p`, [k, k].
    """
    differences = figures[:, None] - figures[None, :]
    mean = differences.mean(axis=-1)
    effect = standardised(differences)
    return {
        "difference": mean,
        "ci_low": mean - half,
        "ci_high": mean + half,
        "p_holm": p,
        **dict(zip(("effect_size", "effect_low", "effect_high"), effect, strict=True)),
        "p_sign_flip": sign_flip_p(differences),
    }


def pairs(names: Sequence[str], matrices: Mapping[str, Floats]) -> dict[str, NDArray[Any]]:
    """The columns of a table of all pairs: each variant against those after it."""
    upper = np.triu_indices(len(names), 1)
    first, second = (np.array(names, dtype=object)[places] for places in upper)
    values = {name: matrix[upper] for name, matrix in matrices.items()}
    return {"variant": first, "other": second, **values}


def _matrices(evidence: Evidence, column: str) -> tuple[dict[str, Floats], str]:
    """By figure, [variants, variants], the row's minus the column's; and the model's name.

    One training seed says nothing of another, so it leaves the probability of improvement empty.
    """
    strata, cells = evidence.strata(column), evidence.cells(column)
    half, adjusted, model = _model(evidence, column)
    found = paired(evidence.figures(column), half, adjusted)
    mean = found["difference"]
    students = crossed_half_width(cells[:, None] - cells[None, :])
    prompts = half_width_over_samples([table.mean(axis=1) for table in strata])
    improvement = probability_of_improvement(strata, evidence.drawn[column])
    several = np.where(evidence.n_seeds > 1, 1.0, np.nan)
    return {
        **found,
        "p_sign_flip_holm": holm(found["p_sign_flip"]),
        "students_low": mean - students,
        "students_high": mean + students,
        "prompts_low": mean - prompts,
        "prompts_high": mean + prompts,
        "improvement": several * improvement.estimate,
        "improvement_low": several * improvement.low,
        "improvement_high": several * improvement.high,
        "win_rate": win_rate(strata),
    }, model


def _model(evidence: Evidence, column: str) -> tuple[Floats, Floats, str]:
    """What the leaderboard's tiers rest on, in the order of the evidence's variants."""
    result = evidence.board.tiers.get((column, evidence.metric))
    if result is None:
        nothing = np.full((len(evidence.variants),) * 2, np.nan)
        return nothing, nothing, ""
    compared = sorted(evidence.variants)
    order = np.array([compared.index(name) for name in evidence.variants])
    grid = np.ix_(order, order)
    return result.half_width[grid], result.p[grid], result.method
