"""What tuning and the learning rate did to a run's scores: the price of a choice, and its gain."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from kdbench.base.seeds import derive
from kdbench.base.store import read_json, write_text
from kdbench.base.templates import document
from kdbench.config.identity import canonical
from kdbench.report.plots import write_plots
from kdbench.report.style import SETTINGS, colours_of, shortened
from kdbench.report.table import AVERAGE, Board, Row, write_csv
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult, finished_trials, grid_of
from kdbench.stats.intervals import Floats, Interval, over_samples, over_seeds
from kdbench.stats.ranking import Limits
from kdbench.stats.selection import gains, optimistic

METRIC = "rouge_l"
SPLITS = 100
"""Random halvings of the prompts that a cross-fitted figure averages."""
FACTORS = (1.0, 0.5, 2.0)
"""Of the learning rate; the variant's own first, so that ties go to it."""
WAYS = {"on_average": "one candidate for all sets", "per_set": "one per set"}
"""Of choosing a candidate, and what they choose."""


@dataclass(frozen=True)
class Worth:
    """What one way of choosing is worth on one set, or on average: a row of tuning.csv.

    `mean` and `difference`, to the untuned candidate's `fixed`, are cross-fitted: reported on what
    did not choose. Those named optimistic are reported on what chose.
    """

    objective: str
    set: str
    way: str
    mean: float
    fixed: float
    difference: float
    ci_low: float
    ci_high: float
    optimistic_mean: float
    optimistic_difference: float
    n_seeds: int
    n_candidates: int


@dataclass(frozen=True)
class Price:
    """One objective's candidates, and what choosing among them gained.

    `candidates` are those of tuning.json, the untuned one first; per candidate, `tests` has its
    average over the evaluation sets, `picked` the share of the halvings that chose it on average.
    `choices` are per set and for `average`, by way of choosing.
    """

    label: str
    chosen: str
    candidates: list[dict[str, Any]]
    tests: Floats
    picked: Floats
    n_seeds: int
    choices: dict[str, dict[str, Worth]]
    set_over_average: dict[str, Interval]


@dataclass(frozen=True)
class Sensitivity:
    """One variant at its own learning rate, at half and at twice of it.

    `rows` are the leaderboard's averages by factor of the rate, the lowest first, and `best` the
    factor of the best. `short` is by how much the own rate falls short of it, paired; `gain` what
    choosing the rate gains, reported on what did not make the choice.
    """

    variant: str
    lr: float
    rows: dict[float, Row]
    best: float
    short: Interval
    gain: Interval
    n_seeds: int


def write_tuning(run: Run, board: Board) -> None:
    """Writes `tuning.{md,csv}` of a tuned run, and `lr-sensitivity.*` where neighbours were run."""
    title = run.path.name
    if tuned := prices(run, board):
        write_csv(run.path / "tuning.csv", prices_frame(tuned))
        write_text(run.path / "tuning.md", tuning_markdown(tuned, board, title))
    if rates := sensitivities(run, board):
        write_csv(run.path / "lr-sensitivity.csv", sensitivity_frame(rates))
        write_text(run.path / "lr-sensitivity.md", sensitivity_markdown(rates, title))
        write_plots(run, {"lr-sensitivity": draw_sensitivity(rates, board)})


def prices(run: Run, board: Board) -> list[Price]:
    """The price of tuning of every objective whose candidates are all finished; [] if not tuned."""
    path = run.path / "tuning.json"
    if not path.exists():
        return []
    by_variant: defaultdict[str, list[TrialResult]] = defaultdict(list)
    for trial in finished_trials(Run(run.path / "tuning")):
        by_variant[trial.variant].append(trial)
    found = []
    for label, entry in read_json(path)["objectives"].items():
        groups = [by_variant[candidate["variant"]] for candidate in entry["candidates"]]
        if tables := _tables(groups, board.sets):
            found.append(_price(label, entry, tables))
    return found


def _price(label: str, entry: dict[str, Any], tables: dict[str, Floats]) -> Price:
    generator = np.random.default_rng(derive("selection", label))
    found, differences = gains(tables, splits=SPLITS, generator=generator)
    peeking, n_seeds = optimistic(tables), next(iter(tables.values())).shape[1]

    def choice(name: str, way: str) -> Worth:
        gain = _over_untuned(getattr(differences, way)[name])
        mean = float(getattr(peeking, way)[name])
        return Worth(
            objective=label,
            set=name,
            way=way,
            mean=float(getattr(found, way)[name]),
            fixed=float(found.fixed[name][0]),
            difference=gain.mean,
            ci_low=gain.low,
            ci_high=gain.high,
            optimistic_mean=mean,
            optimistic_difference=mean - float(peeking.fixed[name][0]),
            n_seeds=n_seeds,
            n_candidates=len(entry["candidates"]),
        )

    return Price(
        label=label,
        chosen=entry["chosen"],
        candidates=entry["candidates"],
        tests=peeking.fixed[AVERAGE],
        picked=found.picked_on_average,
        n_seeds=n_seeds,
        choices={name: {way: choice(name, way) for way in WAYS} for name in found.fixed},
        set_over_average={
            name: Interval(float(own.estimate), float(own.low), float(own.high))
            for name, own in differences.set_over_average.items()
        },
    )


def _over_untuned(limits: Limits) -> Interval:
    """The difference to the first candidate."""
    return Interval(*(float(part[0]) for part in (limits.estimate, limits.low, limits.high)))


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
    order = list(board.stability).index
    return sorted(filter(None, found), key=lambda item: order(item.variant))


def _sensitivity(board: Board, rate: float, names: list[str]) -> Sensitivity | None:
    tables = _tables([board.trials[name] for name in names], board.sets)
    if not tables:
        return None
    own = [board.rows[name, AVERAGE, METRIC] for name in names]
    best = int(np.argmax([row.mean for row in own]))
    differences = [table[best] - table[0] for table in tables.values()]  # [seeds, samples] each
    n_seeds = len(differences[0])
    if n_seeds > 1:
        short = over_seeds(np.mean([table.mean(axis=1) for table in differences], axis=0))
    else:
        short = over_samples([table[0] for table in differences])
    generator = np.random.default_rng(derive("selection", names[0]))
    _, chosen = gains(tables, splits=SPLITS, generator=generator)
    gain = _over_untuned(chosen.on_average[AVERAGE])
    rows = {factor: own[FACTORS.index(factor)] for factor in sorted(FACTORS)}
    return Sensitivity(names[0], rate, rows, FACTORS[best], short, gain, n_seeds)


def _tables(groups: Sequence[Sequence[TrialResult]], sets: list[str]) -> dict[str, Floats]:
    """Per set, [variants, seeds, samples], the mean over initial students; {} if none are common.

    A group holds a variant's trials by seed, then initial student.
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


def prices_frame(tuned: Sequence[Price]) -> pd.DataFrame:
    """One row per (objective, set, way of choosing), columns as in `Worth`."""
    rows = [row for price in tuned for own in price.choices.values() for row in own.values()]
    return pd.DataFrame([vars(row) for row in rows])


def sensitivity_frame(rates: Sequence[Sensitivity]) -> pd.DataFrame:
    """One row per variant: average ROUGE-L at each rate with its interval, and the shortfall."""
    rows = []
    for item in rates:
        row: dict[str, object] = {"variant": item.variant, "lr": item.lr}
        for factor, own in item.rows.items():
            row |= _columns(f"x{factor:g}", Interval(own.mean, own.ci_low, own.ci_high))
        row["best"] = item.best
        row |= _columns("short", item.short) | _columns("gain", item.gain)
        rows.append(row | {"n_seeds": item.n_seeds})
    return pd.DataFrame(rows)


def _columns(name: str, interval: Interval) -> dict[str, object]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def tuning_markdown(tuned: Sequence[Price], board: Board, title: str) -> str:
    """`tuning.md`: what choosing gained, by set and on average, and all candidates."""
    return document(
        "report/tuning.md",
        title=title,
        tuned=tuned,
        sets=board.sets if len(board.sets) > 1 else [],
        n_seeds=tuned[0].n_seeds,
        n_candidates=max(len(price.candidates) for price in tuned),
        splits=SPLITS,
        ways={
            way: (what, float(np.mean([p.choices[AVERAGE][way].difference for p in tuned])))
            for way, what in WAYS.items()
        },
        candidates=[(price, *one) for price in tuned for one in enumerate(price.candidates)],
    )


def sensitivity_markdown(rates: Sequence[Sensitivity], title: str) -> str:
    """`lr-sensitivity.md`: every variant at half, at once and at twice its learning rate."""
    own = [item.rows[1.0].mean for item in rates]
    best = [item.rows[item.best].mean for item in rates]
    return document(
        "report/lr-sensitivity.md",
        title=title,
        rates=rates,
        n_seeds=min(item.n_seeds for item in rates),
        leads_at_own=rates[int(np.argmax(own))].variant,
        leads_at_best=rates[int(np.argmax(best))].variant,
        tau=float(stats.kendalltau(own, best).statistic) if len(rates) > 2 else None,
    )


def draw_sensitivity(rates: Sequence[Sensitivity], board: Board) -> Figure:
    """Average ROUGE-L over the learning rate, each variant's interval as a bar."""
    colours = colours_of(board)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.5, max(4.0, 1.2 + 0.2 * len(rates))), layout="constrained")
        axes = figure.subplots()
        for place, item in enumerate(rates):
            # Side by side, so that bars at one rate do not hide each other.
            shift = 1 + 0.12 * ((place + 0.5) / len(rates) - 0.5)
            colour, dashes = colours[item.variant]
            axes.errorbar(
                [item.lr * factor * shift for factor in item.rows],
                [row.mean for row in item.rows.values()],
                yerr=[row.ci_high - row.mean for row in item.rows.values()],
                color=colour, linestyle=dashes, linewidth=1.4, elinewidth=0.7, marker="o",
                markersize=3.5, label=shortened(item.variant),
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        ticks = sorted({item.lr * factor for item in rates for factor in FACTORS})
        if len(ticks) <= len(FACTORS):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("ROUGE-L, average of the sets")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    return figure
