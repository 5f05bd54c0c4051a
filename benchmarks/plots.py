"""One plot a benchmark: the newest rows of results/perf.csv that one machine gave."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import measure
from benchmarks.measure import OURS, RANGE, hardware
from kdbench.report.plots import to_bytes
from kdbench.report.style import SETTINGS

PLOTS = Path(__file__).parent / "plots"


def draw(benchmark: str, threads: int) -> Path:
    """Draws a benchmark's rows of this machine and returns the file."""
    rows = pd.read_csv(measure.PERF)
    rows = rows[(rows["benchmark"] == benchmark) & (rows["hardware"] == hardware(threads))]
    with mpl.rc_context(SETTINGS):
        figure = figure_of(rows)
    PLOTS.mkdir(exist_ok=True)
    path = PLOTS / f"{benchmark}.svg"
    path.write_bytes(to_bytes(figure, "svg"))
    return path


def figure_of(rows: pd.DataFrame) -> Figure:
    """A panel per metric, a line per case, a point per who, on a logarithmic axis.

    Args:
        rows: of one benchmark and one machine, oldest first; the last of each (case, who, metric)
            counts.
    """
    newest = rows.drop_duplicates(["case", "who", "metric"], keep="last")
    ranges = newest[newest["metric"].str.endswith(RANGE)]
    values = newest[~newest["metric"].str.endswith(RANGE)]
    metrics = list(dict.fromkeys(values["metric"]))
    panels = [values[values["metric"] == metric] for metric in metrics]
    heights = [1.0 + panel["case"].nunique() for panel in panels]
    figure = Figure(figsize=(8.0, 0.8 + 0.26 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    others = [who for who in dict.fromkeys(values["who"]) if who != OURS]
    colours = dict(zip([OURS, *others], sns.color_palette("tab10", 1 + len(others)), strict=True))
    for axes, metric, panel in zip(grid[:, 0], metrics, panels, strict=True):
        spread = ranges[ranges["metric"] == metric + RANGE].set_index(["case", "who"])["value"]
        _panel(axes, panel, spread, colours)
        axes.set_xlabel(f"{metric.replace('_', ' ')} [{panel['unit'].iloc[0]}]")
    handles = [
        mpl.lines.Line2D([], [], marker="o", linestyle="", color=colour, label=who)
        for who, colour in colours.items()
        if who in set(values["who"])
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def _panel(
    axes: Axes,
    panel: pd.DataFrame,
    spread: "pd.Series[float]",
    colours: dict[str, tuple[float, float, float]],
) -> None:
    cases = list(dict.fromkeys(panel["case"]))
    for row in panel.itertuples():
        place, value = cases.index(str(row.case)), float(str(row.value))
        half = float(spread.get((row.case, row.who), 0.0)) / 2
        colour, front = colours[str(row.who)], 3 if row.who == OURS else 2
        axes.plot([max(value - half, value / 2), value + half], [place] * 2, "-", color=colour)
        axes.plot(value, place, "o", markersize=5, color=colour, zorder=front)
    if panel["value"].min() > 0:
        axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -0.5)
