"""Plots of a run's evidence: the distribution of ranks, and performance profiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kdbench.report.evidence_data import METRIC, Evidence
from kdbench.report.style import SETTINGS, colours_of, shortened
from kdbench.report.table import AVERAGE, Board
from kdbench.stats.bootstrap import Resampled
from kdbench.stats.intervals import Floats
from kdbench.stats.ranking import Limits, performance_profile

_LEVELS = 121


@dataclass(frozen=True)
class Profile:
    """The performance profiles of the variants, each set on one scale.

    Attributes:
        levels: [levels], from a little below the lowest figure to a little above the highest, of
            the variants that never diverged.
        shares: of (set, seed) figures above each level, [variants, levels].
        label: what the levels are of.
    """

    levels: Floats
    shares: Limits
    label: str


def draw_evidence(evidence: Evidence, profile: Profile) -> dict[str, Figure]:
    """The plots by file name without suffix."""
    with mpl.rc_context(SETTINGS):
        return {"ranks": draw_ranks(evidence), "profiles": draw_profiles(evidence, profile)}


def draw_ranks(evidence: Evidence) -> Figure:
    """How often each variant takes each rank, on average over the sets."""
    shares = evidence.ranks[AVERAGE].share
    k = len(shares)
    figure = Figure(figsize=(3.6 + 0.36 * k, 1.5 + 0.3 * k), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    for (row, rank), share in np.ndenumerate(shares):
        if share > 0.005:
            axes.text(
                rank + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                color="white" if share > 0.55 else "#222222",
            )  # fmt: skip
    axes.set_xticks(np.arange(k) + 0.5, [str(rank) for rank in range(1, k + 1)])
    axes.set_yticks(np.arange(k) + 0.5, list(map(shortened, evidence.variants)))
    axes.invert_yaxis()
    axes.grid(visible=False)
    over = "training seeds and prompts" if evidence.n_seeds > 1 else "prompts of one training seed"
    axes.set_xlabel(f"rank by average ROUGE-L: per cent of resamplings of {over}")
    return figure


def draw_profiles(evidence: Evidence, profile: Profile) -> Figure:
    """Share of (set, seed) figures above each level, with the bootstrap's band of the first."""
    levels, shares = profile.levels, profile.shares
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axes = figure.subplots()
    colours = colours_of(evidence.board)
    for place, name in enumerate(evidence.variants):
        colour, dashes = colours[name]
        axes.plot(
            levels, shares.estimate[place], color=colour, linestyle=dashes, linewidth=1.4,
            label=shortened(name), drawstyle="steps-post",
        )  # fmt: skip
        if place == 0:
            axes.fill_between(
                levels, shares.low[place], shares.high[place], color=colour, alpha=0.15,
                linewidth=0, step="post",
            )  # fmt: skip
    axes.set(
        xlabel=profile.label, ylabel="share of (set, training seed) above it", ylim=(-0.02, 1.02)
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    return figure


def profile_of(evidence: Evidence) -> Profile:
    """Each set from its initial student (0) to its teacher (1), or as it is without them."""
    ends = [_ends(evidence.board, name) for name in evidence.columns[AVERAGE]]
    strata, drawn = evidence.strata(AVERAGE), evidence.drawn[AVERAGE]
    label = "ROUGE-L of a set"
    if all(low < high for low, high in ends):
        label = "ROUGE-L of a set, from its initial student (0) to its teacher (1)"
        strata = _scaled(strata, ends)
        drawn = Resampled(_scaled(drawn.values, ends), drawn.weights)
    calm = [evidence.board.stability[name].n_diverged == 0 for name in evidence.variants]
    shown = calm if any(calm) else [True] * len(calm)
    figures = np.array([table[shown].mean(axis=-1) for table in strata])
    low, high = figures.min(), figures.max()
    margin = 0.1 * (high - low) + 1e-9
    levels = np.linspace(low - margin, high + margin, _LEVELS)
    return Profile(levels, performance_profile(strata, drawn, levels), label)


def _scaled(tables: Sequence[Floats], ends: Sequence[tuple[float, float]]) -> list[Floats]:
    return [(table - low) / (high - low) for table, (low, high) in zip(tables, ends, strict=True)]


def _ends(board: Board, name: str) -> tuple[float, float]:
    rows = [
        board.rows.get((reference, name, METRIC)) for reference in ("initial student", "teacher")
    ]
    low, high = (np.nan if row is None else row.mean for row in rows)
    return low, high
