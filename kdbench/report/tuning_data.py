"""What tuning and the learning rate did to a run's scores."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdbench.base.seeds import derive
from kdbench.base.store import read_json
from kdbench.config.identity import canonical
from kdbench.report.table import AVERAGE, Board
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult, finished_trials, grid_of
from kdbench.stats.intervals import Floats, Interval, over_samples, over_seeds
from kdbench.stats.selection import Gains, Selection, gains, optimistic

METRIC = "rouge_l"
SPLITS = 100
"""Random halvings of the prompts that a cross-fitted figure averages."""
FACTORS = (1.0, 0.5, 2.0)
"""Of the learning rate; the variant's own first, so that ties go to it."""


@dataclass(frozen=True)
class Price:
    """One objective's candidates, and what choosing among them gained.

    Attributes:
        label: the objective as it was asked for.
        chosen: the candidate that dev chose.
        candidates: as in tuning.json, the untuned one first.
        tests: of each candidate, the average over the evaluation sets.
        n_seeds: trainings of each candidate.
        found: the choices, each reported on what did not make it.
        differences: between them, with intervals.
        peeking: the choices, each reported on what made it.
    """

    label: str
    chosen: str
    candidates: list[dict[str, Any]]
    tests: Floats
    n_seeds: int
    found: Selection
    differences: Gains
    peeking: Selection


@dataclass(frozen=True)
class Sensitivity:
    """One variant at its own learning rate, at half and at twice of it.

    Attributes:
        variant: at its own rate.
        lr: its own rate.
        names: of the three variants, in the order of `FACTORS`.
        best: the place of the best in `FACTORS`.
        short: by how much the variant's own rate falls short of the best, paired.
        gain: what choosing the rate gains, reported on what did not make the choice.
        n_seeds: training seeds that all three have.
    """

    variant: str
    lr: float
    names: list[str]
    best: int
    short: Interval
    gain: Interval
    n_seeds: int


def prices(run: Run, board: Board) -> list[Price]:
    """The price of tuning of every objective whose candidates are all finished; [] if not tuned.

    Args:
        run: the main run.
        board: its board, for the evaluation sets.
    """
    path = run.path / "tuning.json"
    if not path.exists():
        return []
    by_variant: defaultdict[str, list[TrialResult]] = defaultdict(list)
    for trial in finished_trials(Run(run.path / "tuning")):
        by_variant[trial.variant].append(trial)
    found = []
    for label, entry in read_json(path)["objectives"].items():
        groups = [by_variant[candidate["variant"]] for candidate in entry["candidates"]]
        tables = _tables(groups, board.sets)
        if not tables:
            continue
        generator = np.random.default_rng(derive("selection", label))
        selection, differences = gains(tables, splits=SPLITS, generator=generator)
        peeking = optimistic(tables)
        found.append(
            Price(
                label=label,
                chosen=entry["chosen"],
                candidates=entry["candidates"],
                tests=peeking.fixed[AVERAGE],
                n_seeds=next(iter(tables.values())).shape[1],
                found=selection,
                differences=differences,
                peeking=peeking,
            )
        )
    return found


def sensitivities(run: Run, board: Board) -> list[Sensitivity]:
    """Every variant that was also run at half and at twice its learning rate, the best first."""
    lr = run.spec.shared.suite.recipe.lr
    families: defaultdict[str, dict[float, str]] = defaultdict(dict)
    for variant in board.stability:
        spec = board.trials[variant][0].files.spec
        key = canonical([spec.objective, spec.params, spec.source])
        families[key].setdefault(spec.lr or lr, variant)
    found = [
        _sensitivity(board, rate, [rates[rate * factor] for factor in FACTORS])
        for rates in families.values()
        for rate in rates
        if all(rate * factor in rates for factor in FACTORS)
    ]
    order = list(board.stability)
    return sorted(
        (item for item in found if item is not None), key=lambda item: order.index(item.variant)
    )


def _sensitivity(board: Board, rate: float, names: list[str]) -> Sensitivity | None:
    tables = _tables([board.trials[name] for name in names], board.sets)
    if not tables:
        return None
    means = [board.rows[name, AVERAGE, METRIC].mean for name in names]
    best = int(np.argmax(means))
    differences = [table[best] - table[0] for table in tables.values()]  # [seeds, samples] each
    n_seeds = len(differences[0])
    if n_seeds > 1:
        short = over_seeds(np.mean([table.mean(axis=1) for table in differences], axis=0))
    else:
        short = over_samples([table[0] for table in differences])
    generator = np.random.default_rng(derive("selection", names[0]))
    _, chosen = gains(tables, splits=SPLITS, generator=generator)
    limits = chosen.on_average[AVERAGE]
    gain = Interval(float(limits.estimate[0]), float(limits.low[0]), float(limits.high[0]))
    return Sensitivity(names[0], rate, names, best, short, gain, n_seeds)


def _tables(groups: Sequence[Sequence[TrialResult]], sets: list[str]) -> dict[str, Floats]:
    """Per set, [variants, seeds, samples], the mean over initial students; {} if none are common.

    Args:
        groups: the trials of each variant, by seed and then initial student.
        sets: whose scores.
    """
    if not all(groups):
        return {}
    grid = grid_of(groups)
    if not grid.seeds:
        return {}
    shape = len(groups), len(grid.seeds), len(grid.init_seeds), -1
    return {
        name: np.reshape(
            [[trial.values[name, METRIC] for trial in grid.of(group)] for group in groups], shape
        ).mean(axis=2)
        for name in sets
    }
