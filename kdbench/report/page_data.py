"""What the script of a run's page shows, as values that JSON holds: tables, curves, samples."""

import json
import math
from typing import Any

import pyarrow.parquet as pq

from kdbench.base.store import read_jsonl
from kdbench.report.plots import POINTS, curve_of
from kdbench.report.render import cells
from kdbench.report.table import AVERAGE, Board, Row
from kdbench.runs.folder import Run
from kdbench.runs.results import DIAGNOSTICS, TrialResult
from kdbench.runs.samples import read_samples
from kdbench.runs.scores import METRICS
from kdbench.score.metrics import GREEDY

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

MOST = 20
"""Samples of a set, where the caller does not say how many."""
BUDGET = 3_000_000
"""Bytes of all samples, where the caller does not say how many: a page stays below 5 MB."""
ESCAPED = 5
"""Bytes that a `<` takes in the page beyond its own."""

Answer = tuple[str, float]
"""A text and its ROUGE-L."""


def page_data(board: Board, run: Run, samples: int | None) -> dict[str, Any]:
    """Everything that the page's script shows; `samples` of each set, None for as many as fit."""
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
        "cells": [[[cell.text, _number(cell.value), cell.bold] for cell in row] for row in rows],
        "intervals": [_interval(board.rows[name, set_name, metric]) for name in board.trials],
    }


def _interval(row: Row) -> dict[str, Any]:
    mean, low, high = map(_number, (row.mean, row.ci_low, row.ci_high))
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


def samples_of(board: Board, run: Run, count: int | None) -> dict[str, Any]:
    """Per set: its first samples, each with every variant's answers under both decodings.

    The answers are those of a variant's first training seed and first decoding seed. Without a
    count, as many samples of each set as fit into the budget, 20 at most.
    """
    wanted = MOST if count is None else count
    sets = {name: _set(board, run, name, wanted) for name in board.sets}
    sets = {name: value for name, value in sets.items() if value["items"]}
    if count is None:
        fitting = _fitting([value["items"] for value in sets.values()])
        for value in sets.values():
            del value["items"][fitting:]
    return sets


def _set(board: Board, run: Run, name: str, count: int) -> dict[str, Any]:
    first = [group[0] for group in board.trials.values()]
    total = len(first[0].values[name, "rouge_l"])
    count = min(count, total)
    answers = {
        decoding: [_answers(trial, name, count, greedy=decoding == "greedy") for trial in first]
        for decoding in ("sampled", "greedy")
    }
    answered = any(answers["sampled"])
    prompts = read_samples(run, name) if answered else []
    items: list[dict[str, Any]] = []
    for index in range(count if answered else 0):
        items.append({key: [own.get(index) for own in each] for key, each in answers.items()})
        if prompts:
            sample = prompts[index]
            items[-1] |= {
                "instruction": sample.instruction,
                "input": sample.input,
                "references": sample.references,
            }
    seeds = sorted({trial.seed for trial in first})
    return {"total": total, "seeds": seeds, "withheld": False, "items": items}


def _answers(trial: TrialResult, name: str, count: int, *, greedy: bool) -> dict[int, Answer]:
    """The answers to the first samples of a set, under the first seed of one decoding."""
    rows = read_jsonl(trial.files.generations(name, greedy))
    if not rows:
        return {}
    seed = GREEDY if greedy else min(row["decoding_seed"] for row in rows)
    metric = "rouge_l_greedy" if greedy else "rouge_l"
    table = pq.read_table(
        trial.files.scores_path,
        filters=[
            ("set", "==", name),
            ("metric", "==", metric),
            ("decoding_seed", "==", seed),
            ("sample", "<", count),
        ],
    )
    score_of = {row["sample"]: round(row["value"], 1) for row in table.to_pylist()}
    return {
        row["sample"]: (str(row["text"]), score_of[row["sample"]])
        for row in rows
        if row["decoding_seed"] == seed and row["sample"] in score_of
    }


def _fitting(sets: list[list[dict[str, Any]]]) -> int:
    """The most samples of each set that fit into the budget together, at least one."""
    used = 0
    for index in range(MOST):
        for items in sets:
            if index < len(items):
                text = json.dumps(items[index], ensure_ascii=False)
                used += len(text.encode()) + ESCAPED * text.count("<")
        if used > BUDGET:
            return max(index, 1)
    return MOST
