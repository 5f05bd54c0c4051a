"""What a reader must know to read a run's table: the facts here, the sentences in notes.md."""

import math
from dataclasses import dataclass

from kdbench.base.templates import paragraphs
from kdbench.report.table import Board
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, LEVEL

SAMPLES_MARK = "†"
"""Marks an interval that is over samples."""


@dataclass(frozen=True)
class Facts:
    """What the notes say of a board.

    Attributes:
        prompts: of each set, how many.
        greedy: whether there are greedy answers too.
        over: what the intervals are over, of "training seeds" and "samples".
        seed_counts: how many training seeds the rows have that have several.
        ranked: whether the table has tiers of several variants.
        pooled: whether some column was compared by the pooled model.
        separate: the (metric, set, p) of columns whose variances differ too much for it.
        several_students: whether some row has several initial students.
        sign_flip_p: the least p of an exact sign-flip test, where it cannot reach `level`.
        diverged: whether a training diverged.
        clipped: whether the trainings say which gradients were clipped.
        timed: whether the trainings say how long they took.
        live: whether a training sampled or ran the teacher.
    """

    prompts: dict[str, int]
    greedy: bool
    over: set[str | None]
    seed_counts: list[int]
    ranked: bool
    pooled: bool
    separate: list[tuple[str, str, float]]
    several_students: bool
    sign_flip_p: float | None
    diverged: bool
    clipped: bool
    timed: bool
    live: bool
    mark: str = SAMPLES_MARK
    level: float = LEVEL
    homogeneity_level: float = HOMOGENEITY_LEVEL


def notes(board: Board) -> list[str]:
    """Sentences to stand beneath the table, each only where it applies; names are in backticks."""
    return paragraphs("report/notes.md", board=board, facts=_facts(board))


def _facts(board: Board) -> Facts:
    rows, figures = board.rows.values(), board.stability.values()
    sizes = {row.set: row.n_samples for row in rows}
    costs = [cost for group in board.costs().values() for cost in group]
    sign_flip_p = 2 / 2 ** len(board.seeds)
    return Facts(
        prompts={name: sizes[name] for name in board.sets},
        greedy=any(row.metric == "rouge_l_greedy" for row in rows),
        over={row.interval for row in rows},
        seed_counts=sorted({row.n_seeds for row in rows if row.n_seeds > 1}),
        ranked=bool(board.tiers) and len(figures) > 1,
        pooled=any(result.method == "pooled" for result in board.tiers.values()),
        separate=[
            (metric, name, result.homogeneity)
            for (name, metric), result in board.tiers.items()
            if result.method == "separate" and not math.isnan(result.homogeneity)
        ],
        several_students=any(row.n_init_seeds > 1 for row in rows) or len(board.init_seeds) > 1,
        sign_flip_p=sign_flip_p if len(board.seeds) > 1 and sign_flip_p >= LEVEL else None,
        diverged=any(each.n_diverged for each in figures),
        clipped=not all(math.isnan(each.clipped_share) for each in figures),
        timed=any(cost.train_seconds for cost in costs),
        live=any(cost.teacher_passes or cost.generated_tokens for cost in costs),
    )
