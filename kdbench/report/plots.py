"""The plots of a run, drawn from the same table model; one whose data are absent is left out."""

import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.curves import draw_diagnostics, draw_grad_norm, draw_loss
from kdbench.report.style import SETTINGS, Colour, colours_of, shortened
from kdbench.report.table import AVERAGE, Board, Row

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
    diverged = (
        f" ({row.n_diverged}/{row.n_seeds * row.n_init_seeds} diverged)" if row.n_diverged else ""
    )
    tier = "" if row.tier is None else f"  {row.tier}"
    return f"{shortened(row.variant)}{diverged}{tier}"


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
