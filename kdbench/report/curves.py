"""Plots of the training logs: losses and gradient norms by variant, diagnostics overlaid."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdbench.report.style import colours_of, shortened
from kdbench.report.table import Board
from kdbench.runs.results import DIAGNOSTICS, TrialResult
from kdbench.stats.stability import column

POINTS = 60
"""Points of a curve: each is the mean of an equal share of the steps."""

_BLUE, _RED, _GREY = "#1f6f8b", "#c0392b", "#777777"


def draw_loss(board: Board) -> Figure | None:
    """Training loss, one panel per variant; the objectives' losses share no scale."""
    return _panels(board, "loss", "training loss, each on its own scale")


def draw_grad_norm(board: Board) -> Figure | None:
    """Gradient norm before clipping, one panel per variant on one logarithmic axis."""
    return _panels(board, "grad_norm", "gradient norm before clipping", shared=True)


def draw_diagnostics(board: Board) -> Figure | None:
    """The common diagnostics on the dev set, all variants overlaid: curves that can be compared."""
    curves = {
        (variant, name): curve_of(board.trials[variant], name)
        for variant in board.stability
        for name in DIAGNOSTICS
    }
    names = [name for name in DIAGNOSTICS if any(len(curves[v, name]) for v in board.stability)]
    if not names:
        return None
    colours = colours_of(board)
    rows = math.ceil(len(names) / 2)
    width, height = 10, 3.0 * rows + 0.6
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 2.2 / width, bottom=0.5 / height, top=1 - 0.6 / height
    )
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        for variant in board.stability:
            frame = curves[variant, name].groupby("step", as_index=False)["value"].mean()
            colour, dashes = colours[variant]
            sns.lineplot(
                frame,
                x="step",
                y="value",
                estimator=None,
                color=colour,
                linestyle=dashes,
                linewidth=1.3,
                label=shortened(variant),
                legend=False,
                ax=axes,
            )
        axes.set(xlabel="step", ylabel="" if name == "tvd" else "nats", title=DIAGNOSTICS[name])
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1 - 2.1 / width, 0.93), fontsize=8
    )
    heading = "diagnostics on the dev batch, mean over seeds"
    figure.suptitle(heading, fontsize=10, x=0.6 / width, ha="left", y=1 - 0.1 / height, va="top")
    return figure


def curve_of(trials: Sequence[TrialResult], name: str, points: int | None = None) -> pd.DataFrame:
    """Columns seed, step, value; averaged over `points` equal shares of the steps, if given."""
    frames = []
    for trial in trials:
        steps, values = column(trial.log, name)
        frames.append(pd.DataFrame({"seed": trial.seed, "step": steps, "value": values}))
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[np.isfinite(frame["value"])]
    if points is not None and len(frame):
        last = float(frame["step"].max())
        share = np.floor((frame["step"] - 1) * points / last)
        frame = frame.assign(step=(share + 0.5) * last / points)
    means: pd.DataFrame = frame.groupby(["seed", "step"], as_index=False)["value"].mean()
    return means


def _panels(board: Board, name: str, title: str, *, shared: bool = False) -> Figure | None:
    """One panel per variant: mean over seeds of a log's column, band from the lowest to highest."""
    curves = {v: curve_of(board.trials[v], name, POINTS) for v in board.stability}
    curves = {variant: frame for variant, frame in curves.items() if len(frame)}
    if not curves:
        return None
    columns = min(4, len(curves))
    rows = math.ceil(len(curves) / columns)
    width, height = max(2.5 * columns + 0.3, 6.5), 1.7 * rows + 0.9
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, sharex=True, sharey=shared, squeeze=False)
    # Margins in inches: a layout engine takes seconds for 16 panels.
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.1 / width,
        bottom=0.3 / height,
        top=1 - 0.6 / height,
        wspace=0.08 if shared else 0.32,
        hspace=0.3,
    )
    for axes, (variant, frame) in zip(grid.flat, curves.items(), strict=False):
        seeds = frame.groupby("step", as_index=False)["value"].agg(["mean", "min", "max"])
        axes.fill_between(seeds["step"], seeds["min"], seeds["max"], color=_BLUE, alpha=0.25)
        sns.lineplot(seeds, x="step", y="mean", estimator=None, color=_BLUE, ax=axes)
        axes.set(xlabel="", ylabel="", title=shortened(variant))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if not shared:
            axes.yaxis.set_major_locator(MaxNLocator(3))
        figures = board.stability[variant]
        if shared and not math.isnan(figures.clipped_share):
            text = f"{100 * figures.clipped_share:.0f} % clipped"
            axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", color=_GREY)
        if figures.diverged_at is not None:
            axes.axvline(figures.diverged_at, color=_RED, linestyle=":", linewidth=1)
            axes.text(
                figures.diverged_at, 0.75, " diverged", transform=axes.get_xaxis_transform(),
                color=_RED, fontsize=8,
            )  # fmt: skip
    if shared:
        grid.flat[0].set_yscale("log")
        for axes in grid.flat:
            axes.minorticks_off()
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    heading = f"{title}, by step; line: mean over seeds, band: lowest to highest"
    figure.suptitle(heading, fontsize=10, x=0.5 / width, ha="left", y=1 - 0.1 / height, va="top")
    return figure
