"""The scores that a run's evidence rests on: one axis for each source of variance."""

from dataclasses import dataclass

import numpy as np

from kdbench.base.seeds import derive
from kdbench.report.table import AVERAGE, Board
from kdbench.runs.results import SeedGrid
from kdbench.stats.bootstrap import Resampled, resample
from kdbench.stats.intervals import Floats

METRIC = "rouge_l"
"""What the leaderboard ranks by, and so evidence.md."""
GREEDY = "rouge_l_greedy"
"""The same under greedy decoding, in tables of its own."""


@dataclass(frozen=True)
class Evidence:
    """The ranked variants' scores on the training seeds and initial students that all have.

    Attributes:
        board: the run's board.
        variants: the ranked variants, the best first.
        scores: per set, [variants, seeds, initial students, decodings, samples].
        columns: `average` if there are several sets, then the sets.
        drawn: per column, the hierarchical bootstrap's draws.
        metric: what the scores are.
    """

    board: Board
    variants: list[str]
    scores: dict[str, Floats]
    columns: dict[str, list[str]]
    drawn: dict[str, Resampled]
    metric: str = METRIC

    def strata(self, column: str) -> list[Floats]:
        """One [variants, trainings, samples] per set of a column: by seed, then initial student."""
        return [
            table.mean(axis=3).reshape(len(table), -1, table.shape[-1])
            for table in (self.scores[name] for name in self.columns[column])
        ]

    def cells(self, column: str) -> Floats:
        """[variants, seeds, initial students], the unweighted mean over a column's sets."""
        means = np.mean([table.mean(axis=-1) for table in self.strata(column)], axis=0)
        cells: Floats = means.reshape(len(means), self.n_seeds, self.n_init_seeds)
        return cells

    def figures(self, column: str) -> Floats:
        """[variants, seeds], the mean over initial students."""
        means: Floats = self.cells(column).mean(axis=2)
        return means

    @property
    def n_seeds(self) -> int:
        """Training seeds that all variants have."""
        return len(self.board.seeds)

    @property
    def n_init_seeds(self) -> int:
        """Initial students that all variants have."""
        return len(self.board.init_seeds)


def collect(board: Board, metric: str = METRIC) -> Evidence | None:
    """The evidence of a board; None if fewer than two variants share a training seed."""
    variants = list(board.stability)
    if len(variants) < 2 or not board.seeds:
        return None
    scores = {name: _scores(board, name, metric) for name in board.sets}
    columns = {AVERAGE: board.sets}
    if len(board.sets) > 1:
        columns |= {name: [name] for name in board.sets}
    generator = np.random.default_rng(derive("evidence", *board.sets))
    every = resample([table.mean(axis=3) for table in scores.values()], generator)
    values = dict(zip(board.sets, every.values, strict=True))
    drawn = {
        column: Resampled([values[name] for name in sets], every.weights)
        for column, sets in columns.items()
    }
    return Evidence(board, variants, scores, columns, drawn, metric)


def _scores(board: Board, name: str, metric: str) -> Floats:
    grid = SeedGrid(tuple(board.seeds), tuple(board.init_seeds))
    trials = [grid.of(board.trials[variant]) for variant in board.stability]
    table = np.array([[trial.scores[name, metric] for trial in group] for group in trials])
    scores: Floats = table.reshape(len(table), len(grid.seeds), -1, *table.shape[2:])
    return scores
