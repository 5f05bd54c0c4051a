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
    for panel, row in zip(panels, grid, strict=True):
        figures = _of_panel(frame, panel)
        for axes, settings in zip(row, columns.values(), strict=True):
            for setting, colour in zip(settings, colours, strict=False):
                _line(axes, study, figures, setting, colour)
            _comparators(axes, study, figures, settings)
            axes.margins(x=0.02)
        row[0].set_ylabel(panel[2], fontsize=8)
        _limit(row[0], figures)
    for top, bottom, title in zip(grid[0], grid[-1], columns, strict=True):
        top.set_title(title)
        bottom.set_xlabel(study.design.parameter)
    _legends(figure, grid[0])
    return figure


def draw_heatmaps(study: Study, frame: pd.DataFrame, panels: Sequence[Panel]) -> Figure:
    """One panel per figure: settings by values, the mean over seeds in each cell."""
    design, columns = study.design, 3
    rows = [", ".join(setting) or design.objective for setting in design.settings]
    cells = [
        [study.variant_at.get((setting, value)) for value in design.values]
        for setting in design.settings
    ]
    lines = -(-len(panels) // columns)
    size = 1.6 + columns * (0.6 + 0.5 * len(design.values)), lines * (1.1 + 0.3 * len(rows)) + 0.4
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        means = _of_panel(frame, panel).set_index("variant")["mean"]
        table = [[means.get(name, np.nan) for name in line] for line in cells]
        _heatmap(axes, pd.DataFrame(table, rows, design.values, np.float64), ".3g", 6.5)
        axes.set(xlabel=design.parameter)
        axes.set_title(panel[2])
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
    _heatmap(axes, pd.DataFrame(100 * shares, labels, values), ".0f", 7, vmin=0, vmax=100)
    axes.set(xlabel=f"{study.design.parameter}: per cent of resamplings in which it is best")
    return figure


def _heatmap(axes: Axes, table: pd.DataFrame, numbers: str, size: float, **limits: float) -> None:
    sns.heatmap(
        table, ax=axes, cmap="Blues", annot=True, fmt=numbers, annot_kws={"fontsize": size},
        cbar=False, linewidths=0.5, **limits,
    )  # fmt: skip
    axes.tick_params(labelsize=7, labelrotation=0)


def _of_panel(frame: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    name, metric, _ = panel
    return frame[(frame["set"] == name) & (frame["metric"] == metric)]


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
    names = [cell.variant for cell in study.cells(setting)]
    by_variant = figures.set_index("variant")
    own = by_variant.loc[[name for name in names if name in by_variant.index]]
    places = [
        float(value) if design.numeric else design.values.index(value)
        for value in own[design.parameter]
    ]
    others = zip(list(design.factors)[1:], setting[1:], strict=True)
    label = ", ".join(f"{factor} {level}" for factor, level in others)
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
