"""The scores that a run's evidence rests on: variants by seeds by decodings by samples."""

from dataclasses import dataclass

import numpy as np

from kdbench.report.table import AVERAGE, Board
from kdbench.seeds import derive
from kdbench.stats.bootstrap import Resampled, resample
from kdbench.stats.intervals import Floats

METRIC = "rouge_l"
"""What the leaderboard ranks by; the evidence is about it alone."""


@dataclass(frozen=True)
class Evidence:
    """The ranked variants' scores on the training seeds that all of them have.

    Attributes:
        board: the run's board.
        variants: the ranked variants, the best first.
        scores: per set, [variants, seeds, decodings, samples].
        columns: `average` if there are several sets, then the sets.
        drawn: per column, the hierarchical bootstrap's draws.
    """

    board: Board
    variants: list[str]
    scores: dict[str, Floats]
    columns: dict[str, list[str]]
    drawn: dict[str, Resampled]

    def strata(self, column: str) -> list[Floats]:
        """One [variants, seeds, samples] per set of a column."""
        return [self.scores[name].mean(axis=2) for name in self.columns[column]]

    def figures(self, column: str) -> Floats:
        """[variants, seeds], the unweighted mean over a column's sets."""
        means: Floats = np.mean([table.mean(axis=-1) for table in self.strata(column)], axis=0)
        return means

    @property
    def n_seeds(self) -> int:
        """Training seeds that all variants have."""
        return len(self.board.seeds)


def collect(board: Board) -> Evidence | None:
    """The evidence of a board; None if fewer than two variants share a training seed."""
    variants = list(board.stability)
    if len(variants) < 2 or not board.seeds:
        return None
    scores = {name: _scores(board, name) for name in board.sets}
    columns = {AVERAGE: board.sets}
    if len(board.sets) > 1:
        columns |= {name: [name] for name in board.sets}
    generator = np.random.default_rng(derive("evidence", *board.sets))
    every = resample([table.mean(axis=2) for table in scores.values()], generator)
    values = dict(zip(board.sets, every.values, strict=True))
    drawn = {
        column: Resampled([values[name] for name in sets], every.weights)
        for column, sets in columns.items()
    }
    return Evidence(board, variants, scores, columns, drawn)


def _scores(board: Board, name: str) -> Floats:
    groups = [
        [trial.scores[name, METRIC] for trial in board.trials[variant] if trial.seed in board.seeds]
        for variant in board.stability
    ]
    return np.array(groups)
