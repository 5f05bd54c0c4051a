"""A finished run, or several, beside a published table."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.compare import cells as judging
from kdbench.compare.cells import PublishedCell, read_cells
from kdbench.compare.published import CONFIDENCE, Published, PublishedTable
from kdbench.compare.sides import AnySide, RunSide, read_side
from kdbench.config.identity import differences
from kdbench.config.load import installed_suites, load_suite
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import Run
from kdbench.stats.intervals import Interval
from kdbench.stats.two_runs import kendall_tau
from kdbench.variants.variant import parse


@dataclass(frozen=True)
class Reproduction:
    """What was compared.

    Attributes:
        tiny: whether the run is of another suite, so that only orders can be compared.
        missing: row -> why it has no figures of ours.
        lacking: the sets of the table that the run does not have.
        deviations: where a run differs from its suite as it is installed; what diverged.
    """

    published: Published
    table: PublishedTable
    runs: list[str]
    tiny: bool
    cells: list[PublishedCell]
    missing: dict[str, str]
    lacking: list[str]
    deviations: list[str]

    @property
    def inferred(self) -> list[str]:
        """What is assumed for all rows and no source states."""
        return [*([] if self.tiny else self.published.inferred), *self.table.inferred]

    @property
    def ranked(self) -> list[PublishedCell]:
        """The cells whose order is compared: without references and unknown figures."""
        return [
            cell
            for cell in self.cells
            if not self.table.rows[cell.row].is_reference and not math.isnan(cell.published)
        ]

    @cached_property
    def tau(self) -> dict[str, Interval]:
        """Per column, Kendall's tau of the rows; NaN for fewer than two."""
        found = {}
        for column in dict.fromkeys(cell.set for cell in self.cells):
            own = [cell for cell in self.ranked if cell.set == column]
            figures = [cell.published for cell in own], [cell.ours for cell in own]
            undefined = Interval(math.nan, math.nan, math.nan)
            found[column] = kendall_tau(*figures) if len(own) > 1 else undefined
        return found

    def frame(self) -> pd.DataFrame:
        """One line per cell, and one per row that has none."""
        table = self.table
        whole = {
            "table": table.id,
            "arxiv": table.paper.arxiv,
            "confidence": table.confidence,
            "scale": "tiny" if self.tiny else "published",
            "published_sd_covers": table.std,
        }
        absent = [
            PublishedCell(name, row.variant or "", column, *table.cell(row, column), reason=reason)
            for name, reason in self.missing.items()
            for row in [table.rows[name]]
            for column in table.columns
        ]
        lines = []
        for cell in (*self.cells, *absent):
            inferred = filter(None, [*self.inferred, table.rows[cell.row].inferred])
            lines.append({**whole, **vars(cell), "inferred": "; ".join(inferred)})
        return pd.DataFrame(lines)


def to_markdown(found: Reproduction) -> str:
    """The comparison as Markdown."""
    return render(
        "compare/reproduce.md",
        found=found,
        table=found.table,
        confidence=CONFIDENCE,
        level=judging.LEVEL,
        resolution=judging.RESOLUTION,
        verdicts=Counter(cell.verdict for cell in found.cells if cell.verdict),
        reasons=list(dict.fromkeys(cell.reason for cell in found.cells if cell.reason)),
        ranked=len({cell.row for cell in found.ranked}),
        sets=list(dict.fromkeys(cell.set for cell in found.cells if cell.set != AVERAGE)),
        has_decodings=not all(math.isnan(cell.decoding_sd) for cell in found.cells),
        places=_places(found) if found.tiny else [],
    )


def _places(found: Reproduction) -> list[tuple[PublishedCell, int | None, int | None]]:
    """The rows' averages by the published figure, each with its published rank and ours from 1.

    Rows whose order is not compared come last and have no ranks.
    """
    averages = [cell for cell in found.cells if cell.set == AVERAGE]
    ranked = [cell for cell in averages if cell in found.ranked]
    ranks = {
        cell.row: (
            1 + sum(other.published > cell.published for other in ranked),
            1 + sum(other.ours > cell.ours for other in ranked),
        )
        for cell in ranked
    }
    averages.sort(key=lambda cell: cell.published, reverse=True)
    averages.sort(key=lambda cell: cell.row not in ranks)
    return [(cell, *ranks.get(cell.row, (None, None))) for cell in averages]


def variants_of(
    table: PublishedTable, suite: str | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Row -> canonical name of the variant it needs, and row -> why kdbench has none for it.

    Args:
        table: a published table.
        suite: only the rows that are run on this one.
    """
    names, lacking = {}, {}
    for name, row in table.rows.items():
        if suite is not None and table.suite_of(row) != suite:
            continue
        if row.variant is None:
            lacking[name] = f"kdbench lacks this method: {row.lacks}"
        elif row.is_reference:
            names[name] = row.variant
        else:
            try:
                names[name] = parse(row.variant).name
            except UserError as error:
                lacking[name] = f"kdbench lacks this method: {error}"
    return names, lacking


def reproduce(
    published: Published, table: PublishedTable, runs: Mapping[str, Run], *, tiny: bool
) -> Reproduction:
    """Compares runs with a published table.

    Args:
        published: where the table stands.
        table: one of its tables.
        runs: suite -> run. With `tiny` one run, of any suite, for all rows.
        tiny: compare nothing but the order of the rows.

    Raises:
        UserError: nothing is finished, or a run has no row or no set of the table.
    """
    sides = {suite: read_side(run, run.path.name) for suite, run in runs.items()}
    cells: list[PublishedCell] = []
    missing = {
        name: f"needs the suite {table.suite_of(row)}"
        for name, row in table.rows.items()
        if not tiny and table.suite_of(row) not in sides
    }
    lacking: dict[str, None] = {}
    for suite, side in sides.items():
        names, without = variants_of(table, None if tiny else suite)
        missing |= without
        sets = [name for name in (table.sets or published.sizes) if name in side.sets]
        lacking |= dict.fromkeys(set(table.sets or published.sizes) - set(sets))
        if not sets:
            raise UserError(f"{side.run.path}: none of the sets of {table.id} was scored")
        if tiny:
            names = _each_once(names, missing)
        present = {name: v for name, v in names.items() if v in (*side.variants, *side.references)}
        missing |= {name: "not in the run" for name in names if name not in present}
        cells += read_cells(published, table, side, sets, present, judged=not tiny)
    if not cells:
        needed = [row.variant for row in table.rows.values() if row.variant]
        raise UserError(
            f"{', '.join(str(run.path) for run in runs.values())}: no row of {table.id} is "
            f"finished there; it needs one of {', '.join(dict.fromkeys(needed))}"
        )
    return Reproduction(
        published=published,
        table=table,
        runs=[side.name for side in sides.values()],
        tiny=tiny,
        cells=cells,
        missing={name: missing[name] for name in table.rows if name in missing},
        lacking=[name for name in published.sizes if name in lacking],
        deviations=[line for side in sides.values() for line in _deviations(side, tiny)],
    )


def _each_once(names: Mapping[str, str], missing: dict[str, str]) -> dict[str, str]:
    """On one student, rows that differ by the student alone are one row."""
    first: dict[str, str] = {}
    for row, variant in names.items():
        if (same := first.setdefault(variant, row)) != row:
            missing[row] = f"the same variant as {same}: another student at the published scale"
    return {row: variant for variant, row in first.items()}


def _deviations(side: AnySide, tiny: bool) -> list[str]:
    """How a run differs from its suite as it is installed, and which trainings diverged."""
    suite = side.shared.suite
    if tiny:
        found = []
    elif suite.name in installed_suites():
        lines = differences(load_suite(suite.name), suite)
        found = [
            f"{side.name} differs from the installed suite: {line}"
            for line in lines
            if not line.startswith("description:")
        ]
    else:
        found = [f"{side.name}: the suite {suite.name} is not installed, settings not checked"]
    for variant, trials in side.trials.items() if isinstance(side, RunSide) else ():
        if count := sum(trial.diverged for trial in trials.values()):
            found.append(f"{side.name}: {variant}: {count} of {len(trials)} trainings diverged")
    return found
