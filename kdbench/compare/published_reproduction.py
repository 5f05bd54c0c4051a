"""A finished run, or several, beside a published table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.compare.published_cells import PublishedCell, read_cells
from kdbench.compare.published_tables import Published, Table
from kdbench.compare.sides import BoardSide, RunSide, read_side
from kdbench.config.identity import differences
from kdbench.config.load import installed_suites, load_suite
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
        tau: per column, Kendall's tau of the rows.
        ranked: how many rows the tau is over.
    """

    published: Published
    table: Table
    runs: list[str]
    tiny: bool
    cells: list[PublishedCell]
    missing: dict[str, str]
    lacking: list[str]
    deviations: list[str] = field(default_factory=list)
    tau: dict[str, Interval] = field(default_factory=dict)
    ranked: int = 0

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
        general = [] if self.tiny else self.published.inferred
        inferred = {
            name: "; ".join(filter(None, [*general, *table.inferred, row.inferred]))
            for name, row in table.rows.items()
        }
        lines = [{**whole, **vars(cell), "inferred": inferred[cell.row]} for cell in self.cells]
        lines += [
            {
                **whole,
                "row": name,
                "variant": table.rows[name].variant,
                "set": column,
                "published": table.cell(table.rows[name], column)[0],
                "published_sd": table.cell(table.rows[name], column)[1],
                "reason": reason,
                "inferred": inferred[name],
            }
            for name, reason in self.missing.items()
            for column in table.columns
        ]
        return pd.DataFrame(lines, columns=[*whole, *PublishedCell.__annotations__, "inferred"])


def variants_of(table: Table, suite: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
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
    published: Published, table: Table, runs: Mapping[str, Run], *, tiny: bool
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
    missing = {} if tiny else _other_suites(table, sides)
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
    ranked = [
        cell
        for cell in cells
        if not table.rows[cell.row].is_reference and not math.isnan(cell.published)
    ]
    columns = list(dict.fromkeys(cell.set for cell in cells))
    tau = {name: _tau([cell for cell in ranked if cell.set == name]) for name in columns}
    return Reproduction(
        published=published,
        table=table,
        runs=[side.name for side in sides.values()],
        tiny=tiny,
        cells=cells,
        missing={name: missing[name] for name in table.rows if name in missing},
        lacking=[name for name in published.sizes if name in lacking],
        deviations=[line for side in sides.values() for line in _deviations(side, tiny)],
        tau=tau,
        ranked=len({cell.row for cell in ranked}),
    )


def _other_suites(table: Table, sides: Mapping[str, RunSide | BoardSide]) -> dict[str, str]:
    return {
        name: f"needs the suite {table.suite_of(row)}"
        for name, row in table.rows.items()
        if table.suite_of(row) not in sides
    }


def _each_once(names: Mapping[str, str], missing: dict[str, str]) -> dict[str, str]:
    """On one student, rows that differ by the student alone are one row."""
    first: dict[str, str] = {}
    for row, variant in names.items():
        if variant in first.values():
            same = next(name for name, found in first.items() if found == variant)
            missing[row] = f"the same variant as {same}: another student at the published scale"
        else:
            first[row] = variant
    return first


def _tau(cells: Sequence[PublishedCell]) -> Interval:
    if len(cells) < 2:
        return Interval(math.nan, math.nan, math.nan)
    return kendall_tau([cell.published for cell in cells], [cell.ours for cell in cells])


def _deviations(side: RunSide | BoardSide, tiny: bool) -> list[str]:
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
