"""The plots of a run: of the table and of the training logs; without data there is none."""

import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdbench.base.store import write_bytes
from kdbench.report.style import SETTINGS, Colour, colours_of, shortened
from kdbench.report.table import AVERAGE, Board, Row
from kdbench.runs.folder import Run
from kdbench.runs.results import DIAGNOSTICS, TrialResult
from kdbench.stats.stability import column

POINTS = 60
"""Points of a curve: each is the mean of an equal share of the steps."""

_BLUE, _RED, _GREY = "#1f6f8b", "#c0392b", "#777777"

Line = tuple[float, str, Colour]
"""A height, a label, a colour."""


def draw_all(board: Board) -> dict[str, Figure]:
    """All plots for which there are data, by file name without suffix."""
    plots: dict[str, Callable[[Board], Figure | None]] = {
        "leaderboard": draw_leaderboard,
        "loss": draw_loss,
        "grad_norm": draw_grad_norm,
        "diagnostics": draw_diagnostics,
        "amid_alpha": draw_alpha,
    }
    with mpl.rc_context(SETTINGS):
        drawn = {name: draw(board) for name, draw in plots.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def write_plots(run: Run, figures: Mapping[str, Figure]) -> None:
    """Writes plots by file name without suffix, each as PNG and SVG."""
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            write_bytes(run.path / "plots" / f"{name}.{suffix}", to_bytes(figure, suffix))


def to_bytes(figure: Figure, suffix: str) -> bytes:
    """A figure as a PNG or SVG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with mpl.rc_context(SETTINGS):
        figure.savefig(buffer, format=suffix, dpi=130, metadata=metadata)
    return buffer.getvalue()


def draw_leaderboard(board: Board) -> Figure | None:
    """Average ROUGE-L of each variant with its interval, greedy beside it, references as lines."""
    rows = [board.rows[variant, AVERAGE, "rouge_l"] for variant in board.stability]
    if not rows:
        return None
    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    references = [name for name in board.trials if name not in board.stability]
    lines = {name: board.rows[name, AVERAGE, "rouge_l"].mean for name in references}
    greedy = [board.rows.get((row.variant, AVERAGE, "rouge_l_greedy")) for row in rows]
    left, right = _limits([*rows, *filter(None, greedy)], list(lines.values()))
    palette = sns.color_palette("viridis", max(row.tier or 1 for row in rows) + 1)
    for place, (row, other) in enumerate(zip(rows, greedy, strict=True)):
        colour = palette[(row.tier or 1) - 1]
        _interval(axes, row, place - 0.12, colour, filled=True)
        if other is not None:
            _interval(axes, other, place + 0.18, colour, filled=False)
        axes.plot(row.mean_undiverged, place - 0.12, "x", color=colour)
        if row.mean < left:
            axes.text(left, place - 0.2, f" ← {row.mean:.1f}", color=colour, va="bottom")
    sides = ["right", "left"] if len(lines) == 2 else ["center"] * len(lines)  # never on each other
    for (name, mean), side in zip(sorted(lines.items(), key=itemgetter(1)), sides, strict=True):
        axes.axvline(mean, color="#555555", linestyle="--", linewidth=1)
        axes.text(
            mean, 1.01, f" {name} ", transform=axes.get_xaxis_transform(), ha=side, color="#555555"
        )
    axes.set_xlim(left, right)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    without = "; x: without diverged trials" if any(row.n_diverged for row in rows) else ""
    axes.set_xlabel(
        "average ROUGE-L with 95 % interval\n"
        f"filled: sampled, hollow: greedy; number and colour: tier{without}"
    )
    return figure


def draw_alpha(board: Board) -> Figure | None:
    """Average ROUGE-L against AMiD's alpha, one line per setting of the rest; others as lines."""
    settings: defaultdict[str, list[tuple[float, Row]]] = defaultdict(list)
    others: list[Row] = []
    for variant in board.stability:
        row = board.rows[variant, AVERAGE, "rouge_l"]
        params = json.loads(row.params)
        alpha = params.pop("alpha", None)
        if row.objective == "amid" and isinstance(alpha, int | float):
            rest = ", ".join(f"{key}={value}" for key, value in params.items())
            settings[f"amid ({rest})" if rest else "amid"].append((alpha, row))
        else:
            others.append(row)
    if max(map(len, settings.values()), default=0) < 2:
        return None
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    palette = sns.color_palette("Blues_d", len(settings))[::-1]
    for (setting, points), colour in zip(settings.items(), palette, strict=True):
        points.sort(key=lambda point: point[0])
        means = np.array([row.mean for _, row in points])
        half = np.nan_to_num(means - [row.ci_low for _, row in points])
        axes.errorbar(
            [alpha for alpha, _ in points], means, yerr=half, fmt="o-", color=colour,
            linewidth=1.8, elinewidth=0.9, capsize=2, label=setting, zorder=3,
        )  # fmt: skip
    amid = [row for points in settings.values() for _, row in points]
    low, high = _limits([*amid, *others], [])
    axes.set_ylim(low, high)
    colours = colours_of(board)
    lines = [(row.mean, row.variant, colours[row.variant][0]) for row in others]
    _label_lines(axes, sorted(line for line in lines if low < line[0] < high))
    axes.set(xlabel="alpha", ylabel="average ROUGE-L with 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    return figure


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
                frame, x="step", y="value", estimator=None, color=colour, linestyle=dashes,
                linewidth=1.3, label=shortened(variant), legend=False, ax=axes,
            )  # fmt: skip
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


def _interval(axes: Axes, row: Row, place: float, colour: Colour, *, filled: bool) -> None:
    axes.errorbar(
        row.mean,
        place,
        xerr=None if math.isnan(row.ci_low) else row.mean - row.ci_low,
        fmt="o" if filled else "D",
        markersize=6 if filled else 4,
        markerfacecolor=colour if filled else "white",
        color=colour,
        linewidth=1.6 if filled else 0.8,
        alpha=0.35 if row.n_diverged else 1.0,
    )


def _limits(rows: Sequence[Row], others: Sequence[float]) -> tuple[float, float]:
    """Limits that show all but the means and intervals that a diverged trial moved."""
    shown = list(others)
    for row in rows:
        own = [row.mean, row.ci_low, row.ci_high]
        shown += [row.mean_undiverged] if row.n_diverged else own
    finite = [value for value in shown if math.isfinite(value)] or [0.0, 100.0]
    margin = 0.05 * (max(finite) - min(finite)) + 0.1
    return min(finite) - margin, max(finite) + margin


def _label(row: Row) -> str:
    diverged = f" ({row.n_diverged}/{row.n_trials} diverged)" if row.n_diverged else ""
    return f"{shortened(row.variant)}{diverged}{'' if row.tier is None else f'  {row.tier}'}"


def _label_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Draws horizontal lines, lowest first, and names them, moved apart where they would touch."""
    low, high = axes.get_ylim()
    places: list[float] = []
    for height, _, _ in lines:
        places.append(max(height, places[-1] + (high - low) / 26) if places else height)
    shift = sum(place - line[0] for place, line in zip(places, lines, strict=True))
    for place, (height, label, colour) in zip(places, lines, strict=True):
        axes.axhline(height, color=colour, linestyle="--", linewidth=0.9)
        axes.annotate(
            shortened(label), (1, height), (1.03, place - shift / len(lines)), va="center",
            xycoords=("axes fraction", "data"), textcoords=("axes fraction", "data"),
            color=colour, fontsize=8, arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5),
            },
        )  # fmt: skip


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
        left=0.5 / width, right=1 - 0.1 / width, bottom=0.3 / height, top=1 - 0.6 / height,
        wspace=0.08 if shared else 0.32, hspace=0.3,
    )  # fmt: skip
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
