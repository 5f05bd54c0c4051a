"""How the trainings went: the stability leaderboard, every pair of variants, every loss spike."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from kdbench.base.store import write_text
from kdbench.base.templates import document
from kdbench.report.evidence_data import paired, pairs
from kdbench.report.table import Board, write_csv
from kdbench.runs.folder import Run
from kdbench.stats.intervals import Floats, Interval, newcombe, over_seeds
from kdbench.stats.stability import TrialStability
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, LEVEL, Tiers, holm_list, tiers

SPIKES_SHOWN = 12
"""Loss spikes that stability.md shows, the largest; spikes.csv has all."""
COLUMNS = (
    "figure", "scale", "variant", "other", "difference", "ci_low", "ci_high", "p_holm",
    "effect_size", "effect_low", "effect_high", "p_sign_flip", "model",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure of which less is better, with the scale on which its noise is even."""

    title: str
    of: Callable[[TrialStability], float]
    scale: Callable[[Floats], Floats]
    scale_name: str
    digits: int


FIGURES = (
    Figure("dev gap", lambda trial: trial.dev_gap, lambda x: x, "as it is", 4),
    Figure(
        "spikes", lambda trial: trial.loss_spikes, lambda x: np.sqrt(x + 3 / 8), "square root", 1
    ),
    Figure("gradient CV", lambda trial: trial.grad_norm_cv, np.log, "logarithm", 2),
    Figure("steps to threshold", lambda trial: trial.steps_to_threshold, np.log, "logarithm", 0),
)
"""Counts are on Anscombe's scale."""


@dataclass(frozen=True)
class StabilityCell:
    """One variant's figure: over the seeds that have it, `known` of `total`.

    `never` says whether some seed never got there; `tier` is None where the variant was not told
    apart from others.
    """

    interval: Interval
    known: int
    total: int
    never: bool
    tier: int | None


@dataclass(frozen=True)
class Compared:
    """One figure of all variants, each with a value per training seed that all have.

    `scaled` is [variants, seeds] on the figure's scale, of the variants `names` whose every trial
    has it; `tiers` is None where they could not be compared.
    """

    figure: Figure
    values: dict[str, Floats]
    scaled: Floats
    names: list[str]
    tiers: Tiers | None

    def cell(self, name: str) -> StabilityCell:
        """One variant's."""
        values = self.values[name]
        tier = None
        if self.tiers is not None and name in self.names:
            tier = self.tiers.tier[self.names.index(name)]
        known = int(np.isfinite(values).sum())
        never = bool(np.isinf(values).any())
        return StabilityCell(_over_finite(values), known, len(values), never, tier)

    @property
    def has_data(self) -> bool:
        """Whether any trial has the figure."""
        return any(np.isfinite(values).any() for values in self.values.values())


def write_stability(run: Run, board: Board) -> None:
    """Writes `stability.md`, `stability_comparisons.csv` and `spikes.csv`, if anything trained."""
    if not board.stability:
        return
    write_text(run.path / "stability.md", stability_markdown(board, run.path.name))
    write_csv(run.path / "stability_comparisons.csv", stability_comparisons_frame(board))
    write_csv(run.path / "spikes.csv", spikes_frame(board))


def stability_markdown(board: Board, title: str) -> str:
    """The stability leaderboard as Markdown, the calmest variant first."""
    compared = [compare(board, figure) for figure in FIGURES]
    order = _order(board, compared)
    spikes = spikes_frame(board)
    largest = spikes.sort_values("z", ascending=False, kind="stable").head(SPIKES_SHOWN)
    return document(
        "report/stability.md",
        title=title,
        board=board,
        order=order,
        shown=[found for found in compared if found.has_data],
        has_tiers=any(found.tiers for found in compared),
        separate=[
            found.figure.title
            for found in compared
            if found.tiers and found.tiers.method == "separate"
        ],
        threshold=board.threshold if math.isfinite(board.threshold) else None,
        gradients=_gradients(board, order),
        spikes=list(largest.itertuples(index=False)),
        n_spikes=len(spikes),
        level=LEVEL,
        homogeneity_level=HOMOGENEITY_LEVEL,
    )


def compare(board: Board, figure: Figure) -> Compared:
    """One figure of all variants, told apart as the leaderboard's are.

    A value is the mean over initial students, on the seeds and students that all variants have.
    """
    grid = board.grid
    values = {
        name: grid.by_seed([figure.of(trial) for trial in grid.of(found.trials)])
        for name, found in board.stability.items()
    }
    whole = [name for name, own in values.items() if len(own) > 1 and np.isfinite(own).all()]
    if len(whole) > 1:
        with np.errstate(divide="ignore"):
            scaled = figure.scale(np.array([values[name] for name in whole]))
        if np.isfinite(scaled).all():
            found = tiers([-scaled], [board.stability[name].n_diverged > 0 for name in whole])
            return Compared(figure, values, scaled, whole, found)
    return Compared(figure, values, np.empty((0, 0)), [], None)


def stability_comparisons_frame(board: Board) -> pd.DataFrame:
    """One row per (figure, pair of variants): first minus other, so below zero is calmer.

    Differences and their 95 % intervals are on the figure's scale, which `scale` names; p is
    corrected over the pairs of the figure. For `diverged` it is the difference of the shares with
    Newcombe's interval and Fisher's exact test.
    """
    parts = [_diverged(board), *(_pairs(compare(board, figure)) for figure in FIGURES)]
    return pd.DataFrame([row for rows in parts for row in rows], columns=list(COLUMNS))


def spikes_frame(board: Board) -> pd.DataFrame:
    """One row per loss spike of a trained variant.

    `others` counts the other variants that spiked in the same step of the same seed: they met the
    same batch.
    """
    rows = [
        (name, trial.seed, trial.init_seed, spike.step, spike.length, spike.z, spike.loss)
        for name, figures in board.stability.items()
        for trial in figures.trials
        for spike in trial.spikes
    ]
    columns = ["variant", "seed", "init_seed", "step", "length", "z", "loss"]
    frame = pd.DataFrame(rows, columns=columns)
    together = frame.groupby(["seed", "step"])["variant"].transform("nunique")
    return frame.assign(others=(together - 1).astype(int))


def _order(board: Board, compared: Sequence[Compared]) -> list[str]:
    """Variants by their share of diverged trials, then by the mean of their ranks by figure."""
    ranks: dict[str, list[float]] = {name: [] for name in board.stability}
    for found in compared:
        means = {name: _mean(values) for name, values in found.values.items()}
        for name, mean in means.items():
            if not math.isnan(mean):
                ahead = sum(other < mean for other in means.values())
                tied = sum(other == mean for other in means.values())
                ranks[name].append(ahead + (tied + 1) / 2)

    def key(name: str) -> tuple[float, float, str]:
        figures = board.stability[name]
        own = ranks[name] or [math.inf]
        return figures.n_diverged / figures.n_trials, sum(own) / len(own), name

    return sorted(board.stability, key=key)


def _mean(values: Floats) -> float:
    """NaN without data; inf, so last, if a trial never got there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _over_finite(values: Floats) -> Interval:
    finite = values[np.isfinite(values)]
    return over_seeds(finite) if len(finite) else Interval(math.nan, math.nan, math.nan)


def _gradients(board: Board, order: Sequence[str]) -> dict[str, list[Interval]]:
    """By variant, the gradient norms' median and 99th percentile, and per cent clipped steps.

    They have no better end, so no tier either. {} where no trial logged any.
    """
    grid = board.grid
    found = {}
    for name in order:
        trials = grid.of(board.stability[name].trials)
        columns = (
            [own.grad_norm_median for own in trials],
            [own.grad_norm_p99 for own in trials],
            [100 * own.clipped_share for own in trials],
        )
        found[name] = [_over_finite(grid.by_seed(values)) for values in columns]
    known = any(not math.isnan(own.mean) for row in found.values() for own in row)
    return found if known else {}


def _pairs(compared: Compared) -> list[dict[Hashable, object]]:
    if compared.tiers is None:
        return []
    found = compared.tiers
    table = {
        "figure": compared.figure.title,
        "scale": compared.figure.scale_name,
        **pairs(compared.names, paired(compared.scaled, found.half_width, found.p)),
        "model": found.method,
    }
    return pd.DataFrame(table).to_dict("records")


def _diverged(board: Board) -> list[dict[Hashable, object]]:
    rows: list[dict[Hashable, object]] = []
    p = []
    for (name, own), (other, its) in combinations(board.stability.items(), 2):
        interval = newcombe(own.n_diverged, own.n_trials, its.n_diverged, its.n_trials)
        table = [[f.n_diverged, f.n_trials - f.n_diverged] for f in (own, its)]
        p.append(float(stats.fisher_exact(table).pvalue))
        values = ("diverged", "share", name, other, interval.mean, interval.low, interval.high)
        rows.append({**dict(zip(COLUMNS, values, strict=False)), "model": "exact"})
    for row, adjusted in zip(rows, np.minimum(holm_list(np.array(p)), 1.0), strict=True):
        row["p_holm"] = adjusted
    return rows
