"""Every run against the first: its spec, its results, and what is beyond noise."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.compare.columns import Columns
from kdbench.compare.figures import RunFigures, figures_of
from kdbench.compare.pairing import Pairing, pair, same_answers
from kdbench.compare.sides import BoardSide, RunSide, read_side
from kdbench.config.identity import differences
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import Run
from kdbench.stats.intervals import Interval
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL

MAIN = "rouge_l"
"""The metric that ranks the variants."""
BESIDE = {"greedy": "rouge_l_greedy", "exact match": "exact_match"}
"""Title -> metric of the other differences that the table shows."""


@dataclass(frozen=True)
class Pair:
    """One run against the first.

    Attributes:
        seeds: the training seeds by which the differences are paired; [] where they are not.
        spec: `field: first -> other` of everything in the shared spec that differs.
        facts: the same of versions, commit, hardware and weights.
        definitions: the same of the common variants' parameters, sources and code.
        rows: one per (set, metric, variant); docs/compare.md has the columns.
        tau: per set, Kendall's tau of the common variants' ROUGE-L; {} for fewer than three.
        identical: the common variants (references too) whose scores are the same bit by bit.
        same_answers: whether their answers are as well; None where no answers are stored.
    """

    first: RunSide | BoardSide
    other: RunSide | BoardSide
    pairing: Pairing
    seeds: list[int]
    common: list[str]
    only_first: list[str]
    only_other: list[str]
    spec: list[str]
    facts: list[str]
    definitions: list[str]
    rows: pd.DataFrame
    tau: dict[str, Interval]
    identical: list[str]
    same_answers: bool | None

    @property
    def with_board(self) -> bool:
        """Whether there are only tables of one of them."""
        return isinstance(self.first, BoardSide) or isinstance(self.other, BoardSide)


@dataclass(frozen=True)
class Summary:
    """What people read of a pair: the average of the sets, or the first set where there is none.

    Attributes:
        changes: what differs in spec and variants, digests cut to twelve digits.
        facts: the same of code and machine.
        unlike: the common sets whose prompts are not the same in both runs.
        titles: of the metrics shown beside the main one.
        rows: per variant its rows of `Pair.rows` in the main metric and in those; the first run's
            best first, the references last.
        tested, beyond, up: how many variants were tested, are beyond noise, and went up.
        smallest_p: the least p of an exact sign-flip test, where that decides nothing; else NaN.
        tau: per set, where Kendall's tau is defined; None where there is nothing to rank.
    """

    pair: Pair
    changes: list[str]
    facts: list[str]
    unlike: list[str]
    titles: list[str]
    rows: list[list[dict[str, Any]]]
    tested: int
    beyond: int
    up: int
    smallest_p: float
    tau: dict[str, Interval] | None


def to_markdown(pairs: Sequence[Pair]) -> str:
    """All comparisons as Markdown."""
    return render("compare/compare.md", pages=[summarise(pair) for pair in pairs])


def compare(runs: Sequence[Run], names: Sequence[str]) -> list[Pair]:
    """Compares every run with the first.

    Differences are the other run minus the first. They are paired by training seed and sample where
    both runs trained the same initial student on the same batches and asked the same prompts; by
    sample where only the prompts are the same; and unpaired otherwise.

    Args:
        runs: two or more.
        names: what to call them.

    Raises:
        UserError: fewer than two runs, one without a finished trial, or runs that have no variant
            or no evaluation set in common.
    """
    if len(runs) < 2:
        raise UserError("there is nothing to compare with: name at least two runs")
    first, *others = (read_side(run, name) for run, name in zip(runs, names, strict=True))
    return [_pair(first, other) for other in others]


def labels(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Short names of the runs' folders, or what was typed where these are not all different."""
    short = [
        f"boards/{run.path.name}" if run.path.parent.name == "boards" else run.path.name
        for run in runs
    ]
    return short if len(set(short)) == len(short) else list(names)


def _pair(first: RunSide | BoardSide, other: RunSide | BoardSide) -> Pair:
    sets = [name for name in first.sets if name in other.sets]
    common = [name for name in first.variants if name in other.variants]
    for what, found, sides in (
        ("variant", common, [side.variants for side in (first, other)]),
        ("evaluation set", sets, [side.sets for side in (first, other)]),
    ):
        if not found:
            raise UserError(
                f"{first.run.path} and {other.run.path} have no {what} in common, so nothing can "
                f"be compared: {', '.join(sides[0]) or 'none'} there, "
                f"{', '.join(sides[1]) or 'none'} here"
            )
    pairing = pair(first, other, sets)
    one, two = (figures_of(side, common, sets) for side in (first, other))
    paired: list[int] = []
    if isinstance(one, RunFigures) and isinstance(two, RunFigures) and not pairing.unseeded:
        paired = [seed for seed in one.seeds if seed in two.seeds]
        if len(paired) > 1 or one.seeds == two.seeds:
            one, two = replace(one, seeds=paired), replace(two, seeds=paired)
        else:
            paired = []
            pairing = replace(pairing, unseeded="they share fewer than two training seeds")
    for figures in (one, two):
        if isinstance(figures, RunFigures) and not figures.seeds:
            raise UserError(
                f"{figures.side.run.path}: no training seed that all common variants have "
                "finished; finish the run first"
            )
    columns = Columns(one, two, pairing)
    references = [name for name in first.references if name in other.references]
    families = [common, *([name] for name in references)]
    keys = columns.keys()
    rows = [row for key in keys for family in families for row in columns.rows(*key, family)]
    same = [name for name in (*common, *references) if columns.identical(name)]
    answers = [same_answers(first, other, name) for name in same]
    return Pair(
        first=first,
        other=other,
        pairing=pairing,
        seeds=paired,
        common=common,
        only_first=[name for name in first.variants if name not in common],
        only_other=[name for name in other.variants if name not in common],
        spec=differences(first.shared, other.shared),
        facts=differences(first.facts, other.facts),
        definitions=[line for name in common for line in _redefined(first, other, name)],
        rows=_frame(rows, first.name, other.name, same),
        tau={
            name: columns.agreement(name, metric, common)
            for name, metric in keys
            if metric == MAIN and len(common) > 2
        },
        identical=same,
        same_answers=None if None in answers or not answers else all(answers),
    )


def _frame(
    rows: list[dict[str, Any]], first: str, other: str, identical: list[str]
) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame.insert(0, "first", first)
    frame.insert(1, "other", other)
    return frame.assign(identical=frame["variant"].isin(identical))


def _redefined(first: RunSide | BoardSide, other: RunSide | BoardSide, variant: str) -> list[str]:
    old, new = first.definition(variant), other.definition(variant)
    shared = old.keys() & new.keys()
    return differences(
        {key: value for key, value in old.items() if key in shared},
        {key: value for key, value in new.items() if key in shared},
        variant,
    )


def summarise(pair: Pair) -> Summary:
    """Picks from a pair what people read."""
    frame = pair.rows
    shown = AVERAGE if AVERAGE in set(frame["set"]) else str(frame["set"].iloc[0])
    by_metric: dict[str, dict[str, dict[str, Any]]] = {}
    for record in frame[frame["set"] == shown].to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        by_metric.setdefault(row["metric"], {})[row["variant"]] = row
    beside = {title: by_metric[metric] for title, metric in BESIDE.items() if metric in by_metric}
    main = sorted(
        by_metric[MAIN].values(),
        key=lambda row: (row["variant"] not in pair.common, -row["mean_first"]),
    )
    tested = [row for row in main if row["beyond_noise"] is not None]
    beyond = [row for row in tested if row["beyond_noise"]]
    paired = main[0]["pairing"] == "seed"
    smallest = smallest_sign_flip_p(main[0]["n_seeds_first"]) if paired else math.nan
    ranked = pair.tau and not set(pair.common) <= set(pair.identical)
    return Summary(
        pair=pair,
        changes=[_shortened(line) for line in (*pair.spec, *pair.definitions)],
        facts=[_shortened(line) for line in pair.facts],
        unlike=[name for name, same in pair.pairing.samples.items() if not same],
        titles=list(beside),
        rows=[[row, *(rows[row["variant"]] for rows in beside.values())] for row in main],
        tested=len(tested),
        beyond=len(beyond),
        up=sum(row["difference"] > 0 for row in beyond),
        smallest_p=smallest if smallest >= LEVEL else math.nan,
        tau={name: tau for name, tau in pair.tau.items() if not math.isnan(tau.mean)}
        if ranked
        else None,
    )


def _shortened(line: str) -> str:
    """A line with its digests cut to the length at which people compare them."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", line)
