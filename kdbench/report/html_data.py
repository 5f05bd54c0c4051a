"""What the page of a run shows, as plain values that JSON holds."""

import math
from typing import Any

from kdbench.report.curves import POINTS, curve_of
from kdbench.report.html_samples import samples_of
from kdbench.report.render import TableCell, cells
from kdbench.report.table import AVERAGE, Board, Row
from kdbench.runs.folder import Run
from kdbench.runs.results import DIAGNOSTICS, METRICS, TrialResult

METRIC_NAMES = {
    "rouge_l": "ROUGE-L",
    "rouge_l_greedy": "ROUGE-L, greedy",
    "exact_match": "exact match",
    "length": "words",
    "distinct_2": "distinct-2",
}

CURVES = {
    **{name: f"{label}, dev" for name, label in DIAGNOSTICS.items()},
    "dev_nll": "negative log-likelihood, dev",
    "dev_loss": "the objective's own loss, dev",
    "loss": "the objective's own loss, training",
    "grad_norm": "gradient norm before clipping",
}
LOGARITHMIC = ("grad_norm",)


def page_data(board: Board, run: Run, samples: int | None) -> dict[str, Any]:
    """Everything that the page's script shows.

    Args:
        board: of the run.
        run: where the answers lie.
        samples: of each set; None for as many as fit.
    """
    sets = [AVERAGE, *board.sets]
    metrics = [name for name in METRICS if any(key[2] == name for key in board.rows)]
    header, _ = cells(board, {"": (AVERAGE, metrics[0])})
    return {
        "header": header,
        "sets": sets,
        "metrics": [[name, METRIC_NAMES.get(name, name)] for name in metrics],
        "variants": [
            {"name": name, "objective": group[0].objective, "reference": group[0].reference}
            for name, group in board.trials.items()
        ],
        "views": {
            name: {metric: _view(board, name, metric) for metric in metrics} for name in sets
        },
        "curves": [curve for name in CURVES if (curve := _curve(board, name))],
        "samples": samples_of(board, run, samples),
    }


def _view(board: Board, set_name: str, metric: str) -> dict[str, Any]:
    """The table of one set and metric: per variant its cells and its interval."""
    _, rows = cells(board, {"": (set_name, metric)})
    return {
        "cells": [[_cell(cell) for cell in row] for row in rows],
        "intervals": [_interval(board.rows[name, set_name, metric]) for name in board.trials],
    }


def _cell(cell: TableCell) -> list[Any]:
    return [cell.text, _number(cell.value), cell.bold]


def _interval(row: Row) -> dict[str, Any]:
    values = (row.mean, row.ci_low, row.ci_high)
    mean, low, high = map(_number, values)
    return {"mean": mean, "low": low, "high": high, "diverged": row.n_diverged > 0}


def _curve(board: Board, name: str) -> dict[str, Any] | None:
    """One column of the training logs: per variant, [step, mean, lowest, highest] over seeds."""
    lines = {variant: _points(board.trials[variant], name) for variant in board.stability}
    if not any(lines.values()):
        return None
    return {"name": name, "label": CURVES[name], "log": name in LOGARITHMIC, "lines": lines}


def _points(trials: list[TrialResult], name: str) -> list[list[float]]:
    frame = curve_of(trials, name)
    if frame["step"].nunique() > POINTS:
        frame = curve_of(trials, name, POINTS)
    seeds = frame.groupby("step", as_index=False)["value"].agg(["mean", "min", "max"])
    return [[float(f"{value:.4g}") for value in row] for row in seeds.to_numpy().tolist()]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
