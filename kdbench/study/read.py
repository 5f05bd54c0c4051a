"""A study's stored rows: the scores of every cell, comparator and reference, by student."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kdbench.base.errors import UserError
from kdbench.report.table import Board, build_board
from kdbench.runs.folder import Run
from kdbench.runs.results import SeedGrid, TrialResult, grid_of
from kdbench.stats.intervals import Floats
from kdbench.study.design import Design, Setting, StudyCell, read_design

Tables = dict[str, Floats]
"""Per evaluation set, an array whose last two axes are seeds and samples."""


@dataclass(frozen=True)
class Study:
    """The finished trials of a study.

    Attributes:
        boards: of each student's run.
        grids: the trials of each that are compared; the training seeds are common to all.
        waiting: students that have no such seed yet.
    """

    path: Path
    design: Design
    boards: dict[str, Board]
    grids: dict[str, SeedGrid]
    waiting: tuple[str, ...]

    @property
    def students(self) -> list[str]:
        """Those that are reported on."""
        return list(self.boards)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds that every cell and comparator of every student has."""
        return next(iter(self.grids.values())).seeds

    @cached_property
    def sets(self) -> list[str]:
        """The evaluation sets."""
        return next(iter(self.boards.values())).sets

    @cached_property
    def variant_at(self) -> dict[tuple[Setting, str], str]:
        """The variant of each setting and value of the grid."""
        return {(cell.setting, cell.value): cell.variant for cell in self.design.cells}

    @cached_property
    def common_values(self) -> list[str]:
        """The values that the objective takes in every setting."""
        settings, values = self.design.settings, self.design.values
        return [v for v in values if all((setting, v) in self.variant_at for setting in settings)]

    def cells(self, setting: Setting | None = None, value: str | None = None) -> list[StudyCell]:
        """The cells of one setting, of one value, or all."""
        return [
            cell
            for cell in self.design.cells
            if setting in (None, cell.setting) and value in (None, cell.value)
        ]

    def scores(self, student: str, variants: list[str], metric: str) -> Tables:
        """Per set, [variants, seeds, samples]; means over decoding seeds and initial students."""
        groups = [self.trials(student, variant) for variant in variants]
        shape = len(groups), len(self.seeds), len(self.grids[student].init_seeds), -1
        return {
            name: np.reshape(
                [[trial.values[name, metric] for trial in group] for group in groups], shape
            ).mean(axis=2)
            for name in self.sets
        }

    def trials(self, student: str, variant: str) -> list[TrialResult]:
        """The trials of a variant that are compared."""
        return self.grids[student].of(self.boards[student].trials[variant])


def read_study(path: Path) -> Study:
    """Reads a study's folder.

    Raises:
        UserError: no training seed is finished for all variants of any student.
    """
    design = read_design(path)
    boards, grids = {}, {}
    for student in design.students:
        board = build_board(Run(path / student))
        grid = grid_of([board.trials.get(name, []) for name in variants_of(design)])
        if grid.seeds:
            boards[student], grids[student] = board, grid
    seeds = set.intersection(*(set(grid.seeds) for grid in grids.values())) if grids else set()
    if not seeds:
        raise UserError(
            f"{path}: no training seed is finished for all variants of a student yet; give the "
            "command of the study again, it goes on where it stopped"
        )
    return Study(
        path=path,
        design=design,
        boards=boards,
        grids={name: SeedGrid(tuple(sorted(seeds)), own.init_seeds) for name, own in grids.items()},
        waiting=tuple(student for student in design.students if student not in boards),
    )


def variants_of(design: Design) -> list[str]:
    """The names of all variants of a study, each once."""
    compared = [item.variant for item in design.comparators if item.variant is not None]
    return list(dict.fromkeys([*(cell.variant for cell in design.cells), *compared]))
