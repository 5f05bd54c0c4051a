"""The samples of a run's page: what was asked, and what each student answered, with its score."""

import json
from typing import Any

import pyarrow.parquet as pq

from kdbench.base.store import read_jsonl
from kdbench.report.table import Board
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult
from kdbench.runs.samples import read_samples
from kdbench.score.metrics import GREEDY

MOST = 20
"""Samples of a set, where the caller does not say how many."""
BUDGET = 3_000_000
"""Bytes of all samples, where the caller does not say how many: a page stays below 5 MB."""
ESCAPED = 5
"""Bytes that a `<` takes in the page beyond its own."""

Answer = tuple[str, float]
"""A text and its ROUGE-L."""


def samples_of(board: Board, run: Run, count: int | None) -> dict[str, Any]:
    """Per set: its first samples, each with every variant's answers under both decodings.

    The answers are those of a variant's first training seed and first decoding seed.

    Args:
        board: of the run.
        run: where prompts and answers lie.
        count: samples of each set; None for as many as fit into the budget, 20 at most.
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
    total = len(next(iter(board.trials.values()))[0].values[name, "rouge_l"])
    first = [group[0] for group in board.trials.values()]
    count = min(count, total)
    sampled = [_answers(trial, name, count, greedy=False) for trial in first]
    greedy = [_answers(trial, name, count, greedy=True) for trial in first]
    answered = any(sampled)
    prompts = read_samples(run, name) if answered else []
    items: list[dict[str, Any]] = []
    for index in range(count if answered else 0):
        item: dict[str, Any] = {
            "sampled": [answers.get(index) for answers in sampled],
            "greedy": [answers.get(index) for answers in greedy],
        }
        if prompts:
            sample = prompts[index]
            item |= {
                "instruction": sample.instruction,
                "input": sample.input,
                "references": sample.references,
            }
        items.append(item)
    return {
        "total": total,
        "seeds": sorted({trial.seed for trial in first}),
        "withheld": False,
        "items": items,
    }


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
