"""The plots of a study: figures against the parameter, as curves with bands and as heatmaps."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.style import SETTINGS, shortened
from kdbench.report.table import AVERAGE
from kdbench.study.best import Agreement
from kdbench.study.design import Setting
from kdbench.study.read import Study
from kdbench.study.tables import DEV, TRAINING

Panel = tuple[str, str, str]
"""Set, metric, and what the axis calls it."""

QUALITY: tuple[Panel, ...] = (
    (AVERAGE, "rouge_l", "ROUGE-L, sampled"),
    (AVERAGE, "rouge_l_greedy", "ROUGE-L, greedy"),
    (AVERAGE, "distinct_2", "distinct-2"),
    (DEV, "forward_kl", "final forward KL (dev)"),
    (DEV, "reverse_kl", "final reverse KL (dev)"),
)
CALM: tuple[Panel, ...] = (
    (TRAINING, "clipped_share", "share of clipped steps"),
    (TRAINING, "loss_spikes", "loss spikes a trial"),
    (TRAINING, "grad_norm_cv", "gradient norm CV"),
    (TRAINING, "rouge_l_sd", "ROUGE-L spread over seeds"),
)
_GREY = "#777777"


def draw_study(
    study: Study, frame: pd.DataFrame, agreements: Sequence[Agreement]
) -> dict[str, Figure]:
    """All plots of a study by file name without suffix.

    Args:
        study: what was read.
        frame: its `study_frame`.
        agreements: its `best_values` of one metric.
    """
    drawn = {}
    with mpl.rc_context(SETTINGS):
        for student in study.students:
            own = frame[frame["student"] == student]
            drawn[f"curves-{student}"] = draw_curves(study, own, QUALITY)
            drawn[f"stability-{student}"] = draw_curves(study, own, CALM)
            drawn[f"heatmaps-{student}"] = draw_heatmaps(study, own, (*QUALITY, *CALM))
        if agreements:
            drawn["best"] = draw_best(study, agreements)
    return drawn


def draw_curves(study: Study, frame: pd.DataFrame, panels: Sequence[Panel]) -> Figure:
    """A row per figure, a column per level of the first factor, a line per setting.

    Bands are 95 % intervals over training seeds, cut where they leave the scale of the means; the
    grey lines are the comparators that belong to a column.
    """
    columns = _columns(study)
    shape = len(panels), len(columns)
    figure = Figure(figsize=(1.6 + 3.6 * shape[1], 2.1 * shape[0] + 0.8), layout="constrained")
    grid = figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    colours = sns.color_palette("deep", max(len(own) for own in columns.values()))
    for row, (name, metric, label) in enumerate(panels):
        figures = frame[(frame["set"] == name) & (frame["metric"] == metric)]
        for place, settings in enumerate(columns.values()):
            axes = grid[row][place]
            for setting, colour in zip(settings, colours, strict=False):
                _line(axes, study, figures, setting, colour)
            _comparators(axes, study, figures, settings)
            axes.margins(x=0.02)
        grid[row][0].set_ylabel(label, fontsize=8)
        _limit(grid[row][0], figures)
    for place, title in enumerate(columns):
        grid[0][place].set_title(title)
        grid[-1][place].set_xlabel(study.design.parameter)
    _legends(figure, grid[0])
    return figure


def draw_heatmaps(study: Study, frame: pd.DataFrame, panels: Sequence[Panel]) -> Figure:
    """One panel per figure: settings by values, the mean over seeds in each cell."""
    design = study.design
    rows = [", ".join(setting) or design.objective for setting in design.settings]
    high = 1.1 + 0.3 * len(rows)
    columns = 3
    lines = -(-len(panels) // columns)
    wide = 0.6 + 0.5 * len(design.values)
    figure = Figure(figsize=(1.6 + columns * wide, lines * high + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, metric, label) in zip(grid.flat, panels, strict=False):
        figures = frame[(frame["set"] == name) & (frame["metric"] == metric)]
        means = _means(study, figures)
        sns.heatmap(
            pd.DataFrame(means, index=rows, columns=list(design.values)), ax=axes, cmap="Blues",
            annot=True, fmt=".3g", annot_kws={"fontsize": 6.5}, cbar=False, linewidths=0.5,
        )  # fmt: skip
        axes.set(xlabel=design.parameter)
        axes.set_title(label)
        axes.tick_params(labelsize=7, labelrotation=0)
    return figure


def draw_best(study: Study, agreements: Sequence[Agreement]) -> Figure:
    """How often each value is best, for every set, level of a factor and student."""
    labels = [
        f"{item.student}: {item.dimension} {shortened(level)}" if item.student != "all"
        else f"all: {level}"
        for item in agreements
        for level in item.levels
    ]  # fmt: skip
    shares = np.concatenate([item.shares for item in agreements])
    values = study.common_values
    size = 4.2 + 0.6 * len(values), 1.2 + 0.26 * len(labels)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        pd.DataFrame(100 * shares, index=labels, columns=values), ax=axes, cmap="Blues", vmin=0,
        vmax=100, annot=True, fmt=".0f", annot_kws={"fontsize": 7}, cbar=False, linewidths=0.5,
    )  # fmt: skip
    axes.tick_params(labelsize=7, labelrotation=0)
    axes.set(xlabel=f"{study.design.parameter}: per cent of resamplings in which it is best")
    return figure


def _columns(study: Study) -> dict[str, list[Setting]]:
    """The settings by the level of the first factor."""
    design = study.design
    if not design.factors:
        return {design.objective: list(design.settings)}
    first, levels = next(iter(design.factors.items()))
    found = {
        f"{first} = {level}": [own for own in design.settings if own[0] == level]
        for level in levels
    }
    return {title: own for title, own in found.items() if own}


def _line(
    axes: Axes, study: Study, figures: pd.DataFrame, setting: Setting, colour: tuple[float, ...]
) -> None:
    design = study.design
    own = _of_setting(study, figures, setting)
    places = [_place(study, value) for value in own[design.parameter]]
    names = list(design.factors)[1:]
    label = ", ".join(f"{n} {level}" for n, level in zip(names, setting[1:], strict=True))
    axes.plot(places, own["mean"], "o-", color=colour, markersize=3, linewidth=1.3, label=label)
    axes.fill_between(
        places, own["ci_low"].astype(float), own["ci_high"].astype(float),
        color=colour, alpha=0.08, linewidth=0,
    )  # fmt: skip
    if not design.numeric:
        axes.set_xticks(range(len(design.values)), list(design.values))


def _legends(figure: Figure, top: Sequence[Axes]) -> None:
    """The settings below the figure, once; the comparators of each column above it."""
    settings: dict[str, Any] = {}
    for axes in top:
        named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        lines = {label: item for label, item in named.items() if item.get_color() == _GREY}
        settings |= {label: item for label, item in named.items() if label not in lines}
        if lines:
            axes.legend(
                lines.values(), lines, fontsize=6.5, loc="lower left", bbox_to_anchor=(0, 1.1),
                ncols=2, borderaxespad=0,
            )  # fmt: skip
    if len(settings) > 1:
        figure.legend(settings.values(), settings, fontsize=7, loc="outside lower center", ncols=4)


def _limit(axes: Axes, figures: pd.DataFrame) -> None:
    """The scale of the means: a band of few seeds may be many times wider."""
    means = figures[figures["role"] != "reference"]["mean"].dropna()
    if len(means):
        margin = 0.25 * (means.max() - means.min()) + 1e-3 * (abs(means.max()) or 1.0)
        axes.set_ylim(means.min() - margin, means.max() + margin)


def _comparators(
    axes: Axes, study: Study, figures: pd.DataFrame, settings: Sequence[Setting]
) -> None:
    styles = ("--", "-.", (0, (1, 1)), (0, (5, 1)))
    shown = [
        item.variant
        for item in study.design.comparators
        if item.variant is not None and set(item.settings) & set(settings)
    ]
    for name, style in zip(shown, styles * len(shown), strict=False):
        for mean in figures[figures["variant"] == name]["mean"].dropna():
            axes.axhline(mean, color=_GREY, linestyle=style, linewidth=0.9, label=shortened(name))


def _of_setting(study: Study, figures: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The rows of one setting, by value, in the design's order."""
    names = [cell.variant for cell in study.cells(setting=setting)]
    found = figures[figures["variant"].isin(names)].set_index("variant")
    return found.loc[[name for name in names if name in found.index]]


def _place(study: Study, value: str) -> float:
    return float(value) if study.design.numeric else study.design.values.index(value)


def _means(study: Study, figures: pd.DataFrame) -> np.ndarray:
    means = figures.set_index("variant")["mean"]
    cells = {(cell.setting, cell.value): cell.variant for cell in study.design.cells}
    return np.array(
        [
            [means.get(cells.get((setting, value)), np.nan) for value in study.design.values]
            for setting in study.design.settings
        ],
        dtype=np.float64,
    )
