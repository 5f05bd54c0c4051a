"""Every run against the first: its spec, its results, and what is beyond noise."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.store import file_digest
from kdbench.base.templates import render
from kdbench.compare.columns import Columns
from kdbench.compare.sides import AnySide, RunSide, read_side
from kdbench.config.identity import differences, other_batches
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import Run
from kdbench.stats.intervals import Interval
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL
from kdbench.stats.two_runs import kendall_tau

MAIN = "rouge_l"
"""The metric that ranks the variants."""
BESIDE = {"greedy": "rouge_l_greedy", "exact match": "exact_match"}
"""Title -> metric of the other differences that the table shows."""


@dataclass(frozen=True)
class Pair(Columns):
    """One run against the first.

    Attributes:
        seeds: the training seeds by which the differences are paired; [] where they are not.
    """

    seeds: list[int]

    @property
    def common(self) -> list[str]:
        """The variants that both have."""
        return _common(self.first.variants, self.other.variants)

    @property
    def only_first(self) -> list[str]:
        """The variants that the first run alone has."""
        return [name for name in self.first.variants if name not in self.other.variants]

    @property
    def only_other(self) -> list[str]:
        """The variants that the other run alone has."""
        return [name for name in self.other.variants if name not in self.first.variants]

    @cached_property
    def spec(self) -> list[str]:
        """`field: first -> other` of everything in the shared spec that differs."""
        return differences(self.first.shared, self.other.shared)

    @cached_property
    def facts(self) -> list[str]:
        """The same of versions, commit, hardware and weights."""
        return differences(self.first.facts, self.other.facts)

    @cached_property
    def definitions(self) -> list[str]:
        """The same of the common variants' parameters, sources and code."""
        found = []
        for name in self.common:
            old, new = self.first.definition(name), self.other.definition(name)
            shared = old.keys() & new.keys()
            old, new = ({key: side[key] for key in old if key in shared} for side in (old, new))
            found += differences(old, new, name)
        return found

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per (set, metric, variant); docs/compare.md has the columns."""
        references = _common(self.first.references, self.other.references)
        families = [self.common, *([name] for name in references)]
        parts = [self.column(*key, family) for key in self.keys() for family in families]
        frame = pd.concat(parts, ignore_index=True)
        return frame.assign(identical=frame["variant"].isin(self.identical))

    @cached_property
    def tau(self) -> dict[str, Interval]:
        """Per set, Kendall's tau of the common variants' ROUGE-L; {} for fewer than three."""
        columns = [(*key, self.common) for key in self.keys() if key[1] == MAIN]
        return {
            column[0]: kendall_tau(self.first.means(*column), self.other.means(*column))
            for column in columns
            if len(self.common) > 2
        }

    @cached_property
    def identical(self) -> list[str]:
        """The common variants (references too) whose scores are the same bit by bit."""
        references = _common(self.first.references, self.other.references)
        return [name for name in (*self.common, *references) if self.is_identical(name)]

    @cached_property
    def same_answers(self) -> bool | None:
        """Whether the answers of the identical are as well; None where some are not stored."""
        found = [_same_answers(self.runs, name) for name in self.identical if self.runs]
        return None if None in found or not found else all(found)


def to_markdown(pairs: Sequence[Pair]) -> str:
    """All comparisons as Markdown."""
    return render("compare/compare.md", pages=[_page(pair) for pair in pairs])


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


def _common(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name in others]


def _pair(first: AnySide, other: AnySide) -> Pair:
    for what, sides in (
        ("variant", (first.variants, other.variants)),
        ("evaluation set", (first.sets, other.sets)),
    ):
        if not _common(*sides):
            raise UserError(
                f"{first.run.path} and {other.run.path} have no {what} in common, so nothing can "
                f"be compared: {', '.join(sides[0]) or 'none'} there, "
                f"{', '.join(sides[1]) or 'none'} here"
            )
    sets, common = _common(first.sets, other.sets), _common(first.variants, other.variants)
    first, other = first.on(sets, common), other.on(sets, common)
    unseeded, paired = _why_unseeded(first, other), []
    if isinstance(first, RunSide) and isinstance(other, RunSide) and not unseeded:
        paired = [seed for seed in first.seeds if seed in other.seeds]
        if len(paired) > 1 or first.seeds == other.seeds:
            first, other = replace(first, seeds=paired), replace(other, seeds=paired)
        else:
            paired, unseeded = [], "they share fewer than two training seeds"
    for side in (first, other):
        if isinstance(side, RunSide) and not side.seeds:
            raise UserError(
                f"{side.run.path}: no training seed that all common variants have finished; "
                "finish the run first"
            )
    same_prompts = {name: _asked_the_same(first, other, name) for name in sets}
    return Pair(first, other, same_prompts, unseeded, paired)


def _asked_the_same(first: AnySide, other: AnySide, name: str) -> bool:
    splits = [side.shared.suite.data.evaluation.get(name) for side in (first, other)]
    if first.shared.data_digest == other.shared.data_digest and splits[0] == splits[1]:
        return True
    paths = [side.run.path / "samples" / f"{name}.jsonl" for side in (first, other)]
    return all(path.exists() for path in paths) and len(set(map(file_digest, paths))) == 1


def _why_unseeded(first: AnySide, other: AnySide) -> str:
    """The first reason why a training seed does not stand for the same thing in both runs."""
    if not isinstance(first, RunSide) or not isinstance(other, RunSide):
        return "a published board holds no figures of single seeds"
    if field := other_batches(first.shared, other.shared):
        if field == "data_digest":
            return "the data differ"
        return f"{field} differs, and with it the order of the data"
    known = [side.facts["weights"].get("initial student") for side in (first, other)]
    if not all(isinstance(digest, str) for digest in known):
        return "provenance.json does not say which one initial student it was"
    return "" if known[0] == known[1] else "the initial students differ"


def _same_answers(runs: tuple[RunSide, RunSide], variant: str) -> bool | None:
    """Whether all answers of the common seeds are equal, byte for byte; None without answers."""
    seen = False
    first, other = (side.trials[variant] for side in runs)
    for seed in first.keys() & other.keys():
        folders = [trials[seed].files.path / "generations" for trials in (first, other)]
        files = [sorted(path.name for path in folder.glob("*.jsonl")) for folder in folders]
        if not all(files):
            continue
        seen = True
        if files[0] != files[1] or any(
            file_digest(folders[0] / name) != file_digest(folders[1] / name) for name in files[0]
        ):
            return False
    return True if seen else None


def _page(pair: Pair) -> dict[str, Any]:
    """What people read of a pair: the average of the sets, or the first set where there is none.

    The variants' rows stand in the first run's order, the best first and the references last; each
    holds the main metric and those beside it. Digests are cut to twelve digits.
    """
    frame = pair.rows
    shown = AVERAGE if AVERAGE in set(frame["set"]) else frame["set"].iloc[0]
    by_metric = {
        metric: {row["variant"]: row for row in own.to_dict("records")}
        for metric, own in frame[frame["set"] == shown].groupby("metric")
    }
    beside = {title: by_metric[metric] for title, metric in BESIDE.items() if metric in by_metric}
    main = sorted(
        by_metric[MAIN].values(),
        key=lambda row: (row["variant"] not in pair.common, -row["mean_first"]),
    )
    beyond = [row for row in main if row["beyond_noise"]]
    paired = main[0]["pairing"] == "seed"
    smallest = smallest_sign_flip_p(main[0]["n_seeds_first"]) if paired else math.nan
    ranked = pair.tau and not set(pair.common) <= set(pair.identical)
    return {
        "pair": pair,
        "changes": [_shortened(line) for line in (*pair.spec, *pair.definitions)],
        "facts": [_shortened(line) for line in pair.facts],
        "unlike": [name for name, same in pair.same_prompts.items() if not same],
        "titles": list(beside),
        "rows": [[row, *(rows[row["variant"]] for rows in beside.values())] for row in main],
        "tested": sum(row["beyond_noise"] is not None for row in main),
        "beyond": len(beyond),
        "up": sum(row["difference"] > 0 for row in beyond),
        # The least p of an exact sign-flip test, where that decides nothing.
        "smallest_p": smallest if smallest >= LEVEL else math.nan,
        # None where there is nothing to rank.
        "tau": {name: tau for name, tau in pair.tau.items() if not math.isnan(tau.mean)}
        if ranked
        else None,
    }


def _shortened(line: str) -> str:
    """A line with its digests cut to the length at which people compare them."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", line)
