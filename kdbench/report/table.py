"""A run's board: every figure that its tables and plots show, computed from its trials."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd

from kdbench.base.plain import csv_of
from kdbench.base.registry import INITIAL_STUDENT, TEACHER
from kdbench.base.store import write_text
from kdbench.config.schema import DEV
from kdbench.runs.folder import Run
from kdbench.runs.results import RANKED, Cost, SeedGrid, TrialResult, finished_trials, grid_of
from kdbench.runs.scores import METRICS
from kdbench.stats import intervals
from kdbench.stats.intervals import Floats
from kdbench.stats.stability import (
    VariantStability,
    of_trial,
    of_variant,
    threshold_of,
)
from kdbench.stats.tiers import Tiers, tiers

AVERAGE = "average"


@dataclass(frozen=True)
class Row:
    """One row of the tidy table, its columns in order; NaN and None are written as nothing."""

    variant: str
    objective: str
    params: str
    set: str
    metric: str
    mean: float
    ci_low: float
    ci_high: float
    sd_train: float
    n_seeds: int
    n_samples: int
    tier: int | None
    n_diverged: int
    mean_undiverged: float
    interval: str | None
    n_init_seeds: int
    sd_decoding: float

    @property
    def n_trials(self) -> int:
        """How many trainings the mean is over."""
        return self.n_seeds * self.n_init_seeds


@dataclass(frozen=True)
class Board:
    """All that is known about a run's finished trials.

    Attributes:
        rows: one per (variant, set, metric), the best variant first.
        stability: per variant, and the threshold its steps are counted to.
        sets: the evaluation sets.
        tiers: per (set, metric), how the variants were told apart.
        seeds: the training seeds that were compared: those that all variants have.
        init_seeds: the initial students that were compared: those that all these seeds have.
        unequal_seeds: whether some variant has more of either than were compared.
        trials: the finished trials, by variant, the best first.
        set_aside: finished trials of initial students that lack another seed of their variant.
        mixed: what differed between the commands that made the run, of what can move a byte.
        dropout: the largest probability of dropout in a training.
        codes: finished trials by the digest of the code of kdbench that made them.
        unlike: the shared models of which the trials had several, and of how many weights.
        budget: `fixed`, or how many candidates of every objective were tried on dev.
    """

    rows: dict[tuple[str, str, str], Row]
    stability: dict[str, VariantStability]
    threshold: float
    sets: list[str]
    tiers: dict[tuple[str, str], Tiers]
    seeds: list[int]
    unequal_seeds: bool
    trials: dict[str, list[TrialResult]]
    init_seeds: list[int] = field(default_factory=lambda: [0])
    set_aside: int = 0
    mixed: tuple[str, ...] = ()
    budget: str = "fixed"
    dropout: float = 0.0
    unlike: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def grid(self) -> SeedGrid:
        """The seeds and initial students that were compared."""
        return SeedGrid(tuple(self.seeds), tuple(self.init_seeds))

    @property
    def decodings(self) -> int:
        """How many decoding seeds every student was sampled with; 0 for one."""
        if all(math.isnan(row.sd_decoding) for row in self.rows.values()):
            return 0
        trial = next(iter(self.trials.values()))[0]
        return max(len(table) for table in trial.scores.values())

    def costs(self) -> dict[str, list[Cost]]:
        """What each training took, by variant; the references were not trained here."""
        return {name: [trial.cost for trial in self.trials[name]] for name in self.stability}


def leaderboard(run: Run) -> pd.DataFrame:
    """The tidy leaderboard of a run: one row per (variant, set, metric) and the set `average`.

    `average` is the unweighted mean over the sets, taken for each seed first. `mean` counts
    diverged trials; `mean_undiverged` leaves them out and is empty where there are none.
    `interval` says what the 95 % interval is over: "training seeds", or "samples" where a variant
    has one seed. The references `teacher` and `initial student` have no tier.

    Raises:
        UserError: trials were scored on different sets, samples or metrics.
    """
    return to_frame(build_board(run))


def to_frame(board: Board) -> pd.DataFrame:
    """The tidy table, columns as in `Row`."""
    frame = pd.DataFrame(list(board.rows.values()), columns=[f.name for f in fields(Row)])
    return frame.astype({"tier": "Int64"})


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table whole or not at all, every float to its last bit."""
    write_text(path, csv_of(frame))


def stability_frame(board: Board) -> pd.DataFrame:
    """One row per variant with its stability figures, the best variant first."""
    names = [f.name for f in fields(VariantStability) if f.name not in ("spread", "trials")]
    rows = []
    for variant, figures in board.stability.items():
        own = [getattr(figures, name) for name in names]
        spread = figures.spread
        rows.append([variant, *own, board.threshold, spread.mean, spread.low, spread.high])
    columns = ["variant", *names, "threshold", "rouge_l_sd", "sd_low", "sd_high"]
    counts = {"diverged_at": "Int64", "worst_seed": "Int64"}
    return pd.DataFrame(rows, columns=columns).astype(counts)


def build_board(run: Run) -> Board:
    """Reads a run's finished trials and computes everything that its tables show.

    Raises:
        UserError: trials were scored on different sets, samples or metrics.
    """
    trials = finished_trials(run)
    groups: defaultdict[str, list[TrialResult]] = defaultdict(list)
    for trial in trials:
        groups[trial.variant].append(trial)
    by_variant = {name: grid_of([group]).of(group) for name, group in groups.items()}
    sets = sorted({name for trial in trials for name, _ in trial.values} - {DEV})
    metrics = [name for name in METRICS if sets and (sets[0], name) in trials[0].values]
    ranked = {name: group for name, group in by_variant.items() if not group[0].reference}
    grid = grid_of(list(ranked.values()))
    columns = [(name, metric) for name in (AVERAGE, *sets) for metric in metrics]
    compared = {
        (name, metric): _compare(list(ranked.values()), _members(name, sets), metric, grid)
        for name, metric in columns
        if metric in RANKED and _blocks(trials[0], sets, grid) > 1
    }
    tier_of = {
        (name, *key): tier
        for key, result in compared.items()
        for name, tier in zip(ranked, result.tier, strict=True)
    }
    by_variant = dict(sorted(by_variant.items(), key=lambda item: _rank(item[1], sets, tier_of)))
    rows = {
        (variant, name, metric): _row(
            group, name, metric, _members(name, sets), tier_of.get((variant, name, metric))
        )
        for variant, group in by_variant.items()
        for name, metric in columns
    }
    threshold, figures = _stability(by_variant, sets)
    return Board(
        rows=rows,
        stability=figures,
        threshold=threshold,
        sets=sets,
        tiers=compared,
        seeds=list(grid.seeds),
        init_seeds=list(grid.init_seeds),
        unequal_seeds=any(len(grid.of(group)) < len(group) for group in ranked.values()),
        trials=by_variant,
        set_aside=len(trials) - sum(map(len, by_variant.values())),
        mixed=tuple(run.provenance.mixed),
        budget="fixed" if run.spec.tuning is None else str(run.spec.tuning.trials),
        dropout=max((t.dropout for group in ranked.values() for t in group), default=0.0),
        unlike=_unlike(trials),
        codes=dict(Counter(trial.rooms for trial in trials)),
    )


def _unlike(trials: Sequence[TrialResult]) -> dict[str, int]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for trial in trials:
        for name, digest in trial.weights.items():
            found[name].add(digest)
    return {name: len(digests) for name, digests in found.items() if len(digests) > 1}


def _members(name: str, sets: list[str]) -> list[str]:
    return sets if name == AVERAGE else [name]


def _blocks(trial: TrialResult, sets: list[str], grid: SeedGrid) -> int:
    """The fewest blocks of a comparison: common seeds, samples if there is one, or nothing."""
    samples = min(len(trial.values[name, "rouge_l"]) for name in sets)
    return samples if len(grid.seeds) == 1 else len(grid.seeds)


def _compare(
    variants: Sequence[Sequence[TrialResult]], sets: list[str], metric: str, grid: SeedGrid
) -> Tiers:
    """Tiers of one column: the blocks are the common seeds, or the samples if there is one."""
    groups = [grid.of(group) for group in variants]
    apart = [any(trial.diverged for trial in group) for group in groups]
    if len(grid.seeds) > 1:
        table = [grid.by_seed([t.figure(sets, metric) for t in group]) for group in groups]
        return tiers([table], apart)
    return tiers([[_by_sample(group, name, metric) for group in groups] for name in sets], apart)


def _by_sample(group: Sequence[TrialResult], name: str, metric: str) -> Floats:
    """[samples], the mean over a variant's trials."""
    means: Floats = np.mean([trial.values[name, metric] for trial in group], axis=0)
    return means


def _row(
    group: Sequence[TrialResult], name: str, metric: str, sets: list[str], tier: int | None
) -> Row:
    grid = grid_of([group])
    per_trial = np.array([trial.figure(sets, metric) for trial in group])
    figures = grid.by_seed(list(per_trial))
    good = np.array([not trial.diverged for trial in group])
    one = len(figures) == 1
    interval = (
        intervals.over_samples([_by_sample(group, member, metric) for member in sets])
        if one
        else intervals.over_seeds(figures)
    )
    over = "samples" if one else "training seeds"
    decoding = float(np.mean([trial.decoding_sd(sets, metric) for trial in group]))
    return Row(
        variant=group[0].variant,
        objective=group[0].objective,
        params=group[0].params,
        set=name,
        metric=metric,
        mean=interval.mean,
        ci_low=interval.low,
        ci_high=interval.high,
        sd_train=np.nan if one else float(figures.std(ddof=1)),
        n_seeds=len(figures),
        n_samples=sum(len(group[0].values[member, "rouge_l"]) for member in sets),
        tier=tier,
        n_diverged=int((~good).sum()),
        mean_undiverged=float(per_trial[good].mean()) if good.any() and not good.all() else np.nan,
        interval=over if np.isfinite(interval.low) else None,
        n_init_seeds=len(grid.init_seeds),
        sd_decoding=np.nan if np.isnan(decoding) else decoding,  # one NaN: rows can be compared
    )


def _rank(
    group: Sequence[TrialResult], sets: list[str], tier_of: dict[tuple[str, str, str], int]
) -> tuple[float, ...]:
    """Teacher, then by tier, diverged rows last in each, then by mean; the initial student last."""
    name = group[0].variant
    place = {TEACHER: -1, INITIAL_STUDENT: 1}.get(name, 0)
    mean = float(np.mean([trial.figure(sets, "rouge_l") for trial in group]))
    tier = tier_of.get((name, AVERAGE, "rouge_l"), 0)
    return place, tier, any(trial.diverged for trial in group), -mean


def _stability(
    by_variant: dict[str, list[TrialResult]], sets: list[str]
) -> tuple[float, dict[str, VariantStability]]:
    """The threshold that steps are counted to, and the figures of every trained variant."""
    trained = {name: group for name, group in by_variant.items() if not group[0].reference}
    threshold = threshold_of(
        [trial.log for group in trained.values() for trial in group if not trial.diverged]
    )
    return threshold, {
        name: of_variant(
            [
                of_trial(
                    trial.log,
                    seed=trial.seed,
                    init_seed=trial.init_seed,
                    diverged=trial.diverged,
                    diverged_at=trial.diverged_at,
                    threshold=threshold,
                )
                for trial in group
            ],
            grid_of([group]).by_seed([trial.figure(sets, "rouge_l") for trial in group]),
        )
        for name, group in trained.items()
    }
