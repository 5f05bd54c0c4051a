"""Writes how sure a run's order is: `evidence.md`, its tables and its plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdbench.base.store import write_text
from kdbench.base.templates import document
from kdbench.report.evidence_data import (
    GREEDY,
    METRIC,
    Evidence,
    collect,
    comparisons_frame,
    ranks_frame,
)
from kdbench.report.evidence_variance import gains_frame, init_share, variance_frame
from kdbench.report.plots import write_plots
from kdbench.report.stability import write_stability
from kdbench.report.style import SETTINGS, colours_of, shortened
from kdbench.report.table import AVERAGE, Board, write_csv
from kdbench.runs.folder import Run
from kdbench.stats.bootstrap import Resampled
from kdbench.stats.intervals import Floats
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.ranking import Limits, performance_profile
from kdbench.stats.tiers import LEVEL

SHOWN = 12
"""Comparisons that evidence.md shows; comparisons.csv has all."""
_LEVELS = 121

TABLES = {"ranks": ranks_frame, "comparisons": comparisons_frame, "variance": variance_frame}
"""By file name without suffix."""

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Profile:
    """The performance profiles of the variants, each set on one scale.

    `levels` are of what `label` says, [levels]: from a little below the lowest figure to a little
    above the highest of the variants that never diverged. `shares` are those of the (set, seed)
    figures above each level, [variants, levels].
    """

    levels: Floats
    shares: Limits
    label: str


@dataclass(frozen=True)
class Written:
    """A run's evidence as it was written; `text` is that of evidence.md."""

    evidence: Evidence
    comparisons: pd.DataFrame
    profile: Profile
    text: str


def write_evidence(run: Run, board: Board) -> Written | None:
    """Writes `stability.md` and its tables, and, where variants can be compared, the evidence.

    That is `evidence.md`, `{ranks,comparisons,variance}.csv` and `plots/{ranks,profiles}`; it takes
    two ranked variants that share a training seed, else None is returned. The tables hold both
    decodings.
    """
    write_stability(run, board)
    evidence = collect(board, METRIC)
    if evidence is None:
        return None
    every = {METRIC: evidence, GREEDY: collect(board, GREEDY)}
    tables = {
        metric: {name: frame_of(found) for name, frame_of in TABLES.items()}
        for metric, found in every.items()
        if found is not None
    }
    for name in TABLES:
        frame = pd.concat([frames[name] for frames in tables.values()], ignore_index=True)
        write_csv(run.path / f"{name}.csv", frame)
    text = evidence_markdown(evidence, tables)
    write_text(run.path / "evidence.md", text)
    profile = profile_of(evidence)
    write_plots(run, draw_evidence(evidence, profile))
    return Written(evidence, tables[METRIC]["comparisons"], profile, text)


def evidence_markdown(evidence: Evidence, tables: Mapping[str, Frames]) -> str:
    """The evidence as Markdown, on the average over the sets; `tables` are its frames by metric."""
    shown = {name: _average(frame) for name, frame in tables[METRIC].items()}
    pairs, variance = shown["comparisons"], shown["variance"]
    against_best = pairs[pairs["variant"] == evidence.variants[0]]
    row, difference = (
        {own.component: own for own in _rows(variance[variance["scope"] == scope])}
        for scope in ("row", "difference")
    )
    return document(
        "report/evidence.md",
        evidence=evidence,
        ranks=_rows(shown["ranks"]),
        pairs=_rows(against_best.head(SHOWN)),
        greedy=_greedy(shown["ranks"], _average(tables[GREEDY]["ranks"]))
        if GREEDY in tables
        else None,
        row=row,
        difference=difference,
        n_diverged=sum(found.n_diverged for found in evidence.board.stability.values()),
        init_shares={
            what: init_share({name: own.share for name, own in found.items()})
            for what, found in (("a row's figure", row), ("a difference", difference))
        },
        gains=_rows(gains_frame(evidence, AVERAGE)),
        smallest_p=smallest_sign_flip_p(evidence.n_seeds),
        level=LEVEL,
    )


def _greedy(sampled: pd.DataFrame, greedy: pd.DataFrame) -> dict[str, Any]:
    """The ranks by greedy decoding, the best first, and how far they agree with the sampled."""
    means, other = (frame.set_index("variant")["mean"] for frame in (sampled, greedy))
    place = means.rank(ascending=False).to_dict()
    ordered = greedy.sort_values("mean", ascending=False, kind="stable")
    return {
        "rows": _rows(ordered.assign(place=ordered["variant"].map(place))),
        "correlation": other.corr(means, method="spearman"),
    }


def _average(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["set"] == AVERAGE]


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples(index=False))


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
