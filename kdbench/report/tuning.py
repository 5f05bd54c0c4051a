"""Writes the price of tuning, and how sensitive the variants are to their learning rates."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from kdbench.base.store import write_bytes, write_text
from kdbench.report.style import SETTINGS, colours_of, shortened
from kdbench.report.table import AVERAGE, Board
from kdbench.report.tuning_data import FACTORS, METRIC, Price, Sensitivity, prices, sensitivities
from kdbench.report.tuning_text import sensitivity_markdown, tuning_markdown
from kdbench.runs.folder import Run
from kdbench.stats.ranking import Limits

COLUMNS = [
    "objective", "set", "way", "mean", "fixed", "difference", "ci_low", "ci_high",
    "optimistic_mean", "optimistic_difference", "n_seeds", "n_candidates",
]  # fmt: skip


def write_tuning(run: Run, board: Board) -> None:
    """Writes `tuning.{md,csv}` of a tuned run, and `lr-sensitivity.*` where neighbours were run.

    Args:
        run: where to.
        board: the run's.
    """
    from kdbench.report.plots import to_bytes

    if tuned := prices(run, board):
        write_text(run.path / "tuning.csv", _csv(prices_frame(tuned)))
        write_text(run.path / "tuning.md", tuning_markdown(tuned, board, run.path.name))
    if rates := sensitivities(run, board):
        write_text(run.path / "lr-sensitivity.csv", _csv(sensitivity_frame(rates, board)))
        text = sensitivity_markdown(rates, board, run.path.name)
        write_text(run.path / "lr-sensitivity.md", text)
        figure = draw_sensitivity(rates, board)
        for suffix in ("png", "svg"):
            write_bytes(run.path / "plots" / f"lr-sensitivity.{suffix}", to_bytes(figure, suffix))


def prices_frame(tuned: Sequence[Price]) -> pd.DataFrame:
    """One row per (objective, set, way of choosing): what it is worth, and against `fixed`.

    `mean`, `difference` and its limits are cross-fitted; those named optimistic are chosen and
    reported on the same answers.
    """
    return pd.DataFrame([row for price in tuned for row in _price_rows(price)], columns=COLUMNS)


def _price_rows(price: Price) -> Iterator[dict[str, object]]:
    for name, fixed in price.found.fixed.items():
        for way in ("on_average", "per_set"):
            limits: Limits = getattr(price.differences, way)[name]
            peeking = float(getattr(price.peeking, way)[name])
            yield {
                "objective": price.label,
                "set": name,
                "way": way,
                "mean": float(getattr(price.found, way)[name]),
                "fixed": float(fixed[0]),
                "difference": limits.estimate[0],
                "ci_low": limits.low[0],
                "ci_high": limits.high[0],
                "optimistic_mean": peeking,
                "optimistic_difference": peeking - float(price.peeking.fixed[name][0]),
                "n_seeds": price.n_seeds,
                "n_candidates": len(price.candidates),
            }


def sensitivity_frame(rates: Sequence[Sensitivity], board: Board) -> pd.DataFrame:
    """One row per variant: average ROUGE-L at each rate with its interval, and the shortfall."""
    rows = []
    for item in rates:
        row: dict[str, object] = {"variant": item.variant, "lr": item.lr}
        for factor, name in sorted(zip(FACTORS, item.names, strict=True)):
            figures = board.rows[name, AVERAGE, METRIC]
            label = f"x{factor:g}"
            row |= {
                label: figures.mean,
                f"{label}_low": figures.ci_low,
                f"{label}_high": figures.ci_high,
            }
        row["best"] = FACTORS[item.best]
        for label, interval in (("short", item.short), ("gain", item.gain)):
            row |= {
                label: interval.mean,
                f"{label}_low": interval.low,
                f"{label}_high": interval.high,
            }
        rows.append(row | {"n_seeds": item.n_seeds})
    return pd.DataFrame(rows)


def draw_sensitivity(rates: Sequence[Sensitivity], board: Board) -> Figure:
    """Average ROUGE-L over the learning rate, each variant's interval as a bar."""
    import matplotlib as mpl

    colours = colours_of(board)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.5, max(4.0, 1.2 + 0.2 * len(rates))), layout="constrained")
        axes = figure.subplots()
        for place, item in enumerate(rates):
            points = sorted(zip(FACTORS, item.names, strict=True))
            rows = [board.rows[name, AVERAGE, METRIC] for _, name in points]
            # Side by side, so that bars at one rate do not hide each other.
            shift = 1 + 0.12 * ((place + 0.5) / len(rates) - 0.5)
            colour, dashes = colours[item.variant]
            axes.errorbar(
                [item.lr * factor * shift for factor, _ in points],
                [row.mean for row in rows],
                yerr=[row.ci_high - row.mean for row in rows],
                color=colour, linestyle=dashes, linewidth=1.4, elinewidth=0.7, marker="o",
                markersize=3.5, label=shortened(item.variant),
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        ticks = sorted({item.lr * factor for item in rates for factor in FACTORS})
        if len(ticks) <= len(FACTORS):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("ROUGE-L, average of the sets")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
