"""The stability leaderboard: how the trainings went, ordered, with intervals and tiers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdbench.report.render import markdown_table
from kdbench.report.stability_sections import gradients_section, spikes_section
from kdbench.report.table import Board
from kdbench.runs.results import SeedGrid
from kdbench.stats.intervals import Floats, over_seeds
from kdbench.stats.stability import TrialStability
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, LEVEL, Tiers, tiers


@dataclass(frozen=True)
class Figure:
    """A figure of which less is better, with the scale on which its noise is even."""

    title: str
    of: Callable[[TrialStability], float]
    scale: Callable[[Floats], Floats]
    scale_name: str
    digits: int


def _root(counts: Floats) -> Floats:
    """Anscombe's scale for counts."""
    root: Floats = np.sqrt(counts + 3 / 8)
    return root


FIGURES = (
    Figure("dev gap", lambda trial: trial.dev_gap, lambda x: x, "as it is", 4),
    Figure("spikes", lambda trial: trial.loss_spikes, _root, "square root", 1),
    Figure("gradient CV", lambda trial: trial.grad_norm_cv, np.log, "logarithm", 2),
    Figure("steps to threshold", lambda trial: trial.steps_to_threshold, np.log, "logarithm", 0),
)


@dataclass(frozen=True)
class Compared:
    """One figure of all variants.

    Attributes:
        values: per variant, one per training seed that all have.
        scaled: [variants, seeds] on the figure's scale, of those whose every trial has it.
        names: of these variants.
        tiers: how they were told apart; None where they could not be compared.
    """

    values: dict[str, Floats]
    scaled: Floats
    names: list[str]
    tiers: Tiers | None

    @property
    def tier(self) -> dict[str, int]:
        """By variant."""
        found = () if self.tiers is None else self.tiers.tier
        return dict(zip(self.names, found, strict=False))


def stability_markdown(board: Board, title: str) -> str:
    """The stability leaderboard as Markdown, the calmest variant first."""
    compared = {figure.title: compare(board, figure) for figure in FIGURES}
    shown = [figure for figure in FIGURES if _has_data(compared[figure.title])]
    header = [
        "variant",
        "diverged",
        *(figure.title for figure in shown),
        "ROUGE-L sd",
        "worst seed",
    ]
    rows = [
        [
            f"`{name}`",
            _diverged(board, name),
            *(_cell(compared[figure.title], figure, name) for figure in shown),
            _spread(board, name),
            _worst(board, name),
        ]
        for name in stability_order(board)
    ]
    lines = [f"# {title}: stability", "", *markdown_table(header, rows), ""]
    lines += [f"* {note}" for note in _notes(board, compared)]
    order = stability_order(board)
    return "\n".join([*lines, *gradients_section(board, order), *spikes_section(board)]) + "\n"


def stability_order(board: Board) -> list[str]:
    """Variants by their share of diverged trials, then by the mean of their ranks by figure."""
    ranks: dict[str, list[float]] = {name: [] for name in board.stability}
    for figure in FIGURES:
        means = {name: _mean(values) for name, values in _values(board, figure).items()}
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


def _values(board: Board, figure: Figure) -> dict[str, Floats]:
    """Per variant, [seeds], the mean over initial students, on what all variants have."""
    grid = SeedGrid(tuple(board.seeds), tuple(board.init_seeds))
    return {
        name: grid.by_seed([figure.of(trial) for trial in grid.of(found.trials)])
        for name, found in board.stability.items()
    }


def compare(board: Board, figure: Figure) -> Compared:
    """One figure of all variants, told apart as the leaderboard's are."""
    values = _values(board, figure)
    whole = [name for name, own in values.items() if len(own) > 1 and np.isfinite(own).all()]
    if len(whole) < 2:
        return Compared(values, np.empty((0, 0)), [], None)
    with np.errstate(divide="ignore"):
        scaled = figure.scale(np.array([values[name] for name in whole]))
    if not np.isfinite(scaled).all():
        return Compared(values, np.empty((0, 0)), [], None)
    found = tiers([-scaled], [board.stability[name].n_diverged > 0 for name in whole])
    return Compared(values, scaled, whole, found)


def _has_data(compared: Compared) -> bool:
    return any(np.isfinite(values).any() for values in compared.values.values())


def _mean(values: Floats) -> float:
    """NaN without data; inf, so last, if a trial never got there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _cell(compared: Compared, figure: Figure, name: str) -> str:
    values = compared.values[name]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "never" if np.isinf(values).any() else ""
    interval = over_seeds(finite)
    text = f"{interval.mean:.{figure.digits}f}"
    if not math.isnan(interval.high):
        text += f" ± {interval.high - interval.mean:.{figure.digits}f}"
    if len(finite) < len(values):
        return f"{text} ({len(finite)} of {len(values)})"
    return f"{text} [{compared.tier[name]}]" if name in compared.tier else text


def _diverged(board: Board, name: str) -> str:
    figures = board.stability[name]
    low, high = 100 * figures.diverged_low, 100 * figures.diverged_high
    return f"{figures.n_diverged}/{figures.n_trials} ({low:.0f} to {high:.0f} %)"


def _spread(board: Board, name: str) -> str:
    spread = board.stability[name].spread
    if math.isnan(spread.mean):
        return ""
    return f"{spread.mean:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _worst(board: Board, name: str) -> str:
    figures = board.stability[name]
    if figures.worst_seed is None:
        return ""
    return f"{figures.worst_rouge_l:.2f} (seed {figures.worst_seed})"


def _notes(board: Board, compared: dict[str, Compared]) -> list[str]:
    notes = [
        "Ordered by the share of diverged trials, then by the mean of the ranks by the other "
        "figures. Less is better everywhere; a calm training is not a good one.",
        "`diverged`: the trials that did, with Wilson's 95 % limits of the share.",
    ]
    if any(found.tier for found in compared.values()):
        notes.append(
            "± is half the 95 % Student-t interval over training seeds; in brackets the tier, told "
            f"apart as in the leaderboard at a family-wise error of {LEVEL:g} for each column "
            "(spikes on a square-root scale, gradient CV and steps on a logarithmic one). "
            "A variant that lacks the figure in some trial has no tier."
        )
    separate = [
        title
        for title, found in compared.items()
        if found.tiers and found.tiers.method == "separate"
    ]
    if separate:
        notes.append(
            f"Error variances differ (p < {HOMOGENEITY_LEVEL:g}), so separate paired t-tests stand "
            f"in for the pooled model in: {', '.join(separate)}."
        )
    if math.isfinite(board.threshold):
        notes.append(
            f"`steps to threshold`: to a total variation from the teacher of {board.threshold:.3f}."
        )
    notes.append(
        "`ROUGE-L sd`: over training seeds, with its 95 % chi-square limits. stability.csv has all "
        "figures, stability_comparisons.csv every pair of variants, spikes.csv every loss spike."
    )
    return notes
