"""One plot a benchmark: the newest rows of results/perf.csv that one machine gave."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
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
    """A panel per metric, a line per case, a point with its range per who, on a logarithmic axis.

    Args:
        rows: of one benchmark and one machine, oldest first; the last of each (case, who, metric)
            counts.
    """
    newest = rows.drop_duplicates(["case", "who", "metric"], keep="last")
    is_range = newest["metric"].str.endswith(RANGE)
    values, keys = newest[~is_range], ["case", "who", "metric"]
    ranges = newest[is_range].assign(metric=newest["metric"].str.removesuffix(RANGE))
    values = values.merge(ranges[[*keys, "value"]], how="left", on=keys, suffixes=("", RANGE))
    panels = list(values.fillna({"value" + RANGE: 0.0}).groupby("metric", sort=False))
    heights = [1.0 + panel["case"].nunique() for _, panel in panels]
    figure = Figure(figsize=(8.0, 0.8 + 0.26 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    names = sorted(values["who"].unique(), key=lambda who: who != OURS)
    colours = dict(
        zip([OURS, *(n for n in names if n != OURS)], mpl.color_sequences["tab10"], strict=False)
    )
    for axes, (metric, panel) in zip(grid[:, 0], panels, strict=True):
        cases = list(panel["case"].unique())
        for who, drawn in panel.groupby("who", sort=False):
            half, places = drawn["value" + RANGE] / 2, drawn["case"].map(cases.index)
            below = np.minimum(half, drawn["value"] / 2)
            style = {"color": colours[who], "markersize": 5, "zorder": 3 if who == OURS else 2}
            axes.errorbar(drawn["value"], places, xerr=[below, half], fmt="o", **style)
        if panel["value"].min() > 0:
            axes.set_xscale("log")
        axes.set_yticks(range(len(cases)), cases)
        axes.set_ylim(len(cases) - 0.5, -0.5)
        axes.set_xlabel(f"{metric.replace('_', ' ')} [{panel['unit'].iloc[0]}]")
    points = {"marker": "o", "linestyle": ""}
    handles = [mpl.lines.Line2D([], [], color=colours[who], label=who, **points) for who in names]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure
