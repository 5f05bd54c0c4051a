"""What a reader must know to read a run's table: the facts here, the sentences in notes.md."""

import math
from typing import Any

from kdbench.base.templates import paragraphs
from kdbench.report.table import Board
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, LEVEL

SAMPLES_MARK = "†"
"""Marks an interval that is over samples."""


def notes(board: Board) -> list[str]:
    """Sentences to stand beneath the table, each only where it applies; names are in backticks."""
    return paragraphs("report/notes.md", board=board, **_facts(board))


def _facts(board: Board) -> dict[str, Any]:
    """What the notes say of a board beside its own fields."""
    rows, figures = board.rows.values(), board.stability.values()
    sizes = {row.set: row.n_samples for row in rows}
    costs = [cost for group in board.costs().values() for cost in group]
    sign_flip_p = 2 / 2 ** len(board.seeds)
    return {
        "mark": SAMPLES_MARK,
        "level": LEVEL,
        "homogeneity_level": HOMOGENEITY_LEVEL,
        "prompts": {name: sizes[name] for name in board.sets},
        "greedy": any(row.metric == "rouge_l_greedy" for row in rows),
        "over": {row.interval for row in rows},
        "seed_counts": sorted({row.n_seeds for row in rows if row.n_seeds > 1}),
        "ranked": bool(board.tiers) and len(figures) > 1,
        "pooled": any(result.method == "pooled" for result in board.tiers.values()),
        "separate": [
            (metric, name, result.homogeneity)
            for (name, metric), result in board.tiers.items()
            if result.method == "separate" and not math.isnan(result.homogeneity)
        ],
        "several_students": any(row.n_init_seeds > 1 for row in rows) or len(board.init_seeds) > 1,
        "sign_flip_p": sign_flip_p if len(board.seeds) > 1 and sign_flip_p >= LEVEL else None,
        "diverged": any(each.n_diverged for each in figures),
        "clipped": not all(math.isnan(each.clipped_share) for each in figures),
        "timed": any(cost.train_seconds for cost in costs),
        "live": any(cost.teacher_passes or cost.generated_tokens for cost in costs),
    }
