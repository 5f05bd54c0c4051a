"""The cells of a published table, each beside the figure of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from kdbench.base.errors import UserError
from kdbench.compare.figures import BoardFigures, RunFigures, figures_of
from kdbench.compare.published_tables import Published, PublishedRow, Table
from kdbench.compare.published_verdict import judge
from kdbench.compare.sides import BoardSide, RunSide
from kdbench.report.table import AVERAGE

METRIC = "rouge_l"


@dataclass(frozen=True)
class PublishedCell:
    """One cell of a table, beside ours; NaN where something is not known.

    Attributes:
        low: our mean's 95 % interval, over `interval`.
        decoding_sd: ours over decoding seeds (ddof 0), the mean over trainings.
        half: the difference of one more training would lie within minus and plus this.
    """

    row: str
    variant: str
    set: str
    published: float
    published_sd: float
    ours: float
    low: float
    high: float
    interval: str
    decoding_sd: float
    difference: float = math.nan
    half: float = math.nan
    verdict: str = ""
    reason: str = ""


def read_cells(
    published: Published,
    table: Table,
    side: RunSide | BoardSide,
    sets: list[str],
    names: Mapping[str, str],
    *,
    judged: bool,
) -> list[PublishedCell]:
    """The cells of a table that one run has figures for.

    Args:
        published: where the table stands.
        table: one of its tables.
        side: the run, or a published board.
        sets: of the table, those that the run has.
        names: row -> variant, of those that the run has.
        judged: whether its figures may be compared with the published ones.

    Raises:
        UserError: no training seed is finished for all rows.
    """
    trained = [name for name in dict.fromkeys(names.values()) if name in side.variants]
    figures = figures_of(side, trained, sets)
    if trained and isinstance(figures, RunFigures) and not figures.seeds:
        raise UserError(f"{side.run.path}: no training seed is finished for all rows; run it again")
    columns = [*sets, AVERAGE] if table.sets else [AVERAGE]
    cells = [
        _ours(figures, row, variant, column, *_published(table, table.rows[row], column, sets))
        for row, variant in names.items()
        for column in columns
    ]
    if not judged:
        return cells
    if not table.sets and len(sets) < len(published.sizes):
        return [replace(cell, reason="the run lacks sets of this average") for cell in cells]
    errors = {column: _errors(figures, column, trained) for column in columns}
    return [
        cell
        if math.isnan(cell.published)
        else _judged(cell, figures, errors[cell.set].get(cell.variant), published.sizes)
        for cell in cells
    ]


def _errors(
    figures: RunFigures | BoardFigures, column: str, variants: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Squared standard error over training seeds and its df, of variants with several."""
    several = [name for name in variants if figures.count(name) > 1]
    if not several:
        return {}
    errors = figures.over_seeds(column, METRIC, several)[0]
    pairs = zip(errors.squared.tolist(), errors.df.tolist(), strict=True)
    return dict(zip(several, pairs, strict=True))


def _judged(
    cell: PublishedCell,
    figures: RunFigures | BoardFigures,
    error: tuple[float, float] | None,
    sizes: Mapping[str, int],
) -> PublishedCell:
    difference = cell.ours - cell.published
    verdict = judge(
        difference,
        figures.count(cell.variant),
        error,
        cell.published_sd,
        _prompts(sizes, figures, cell.set, cell.variant),
    )
    return replace(
        cell,
        difference=difference,
        half=verdict.half,
        verdict=verdict.word,
        reason=verdict.reason,
    )


def _published(
    table: Table, row: PublishedRow, column: str, sets: Sequence[str]
) -> tuple[float, float]:
    """A published cell; an average is over the sets that the run has too."""
    if column != AVERAGE or not table.sets or set(sets) == set(table.sets):
        return table.cell(row, column)
    cells = [table.cell(row, name) for name in sets]
    mean = math.fsum(cell[0] for cell in cells) / len(cells)
    return mean, math.hypot(*(cell[1] for cell in cells)) / len(cells)


def _ours(
    figures: RunFigures | BoardFigures,
    row: str,
    variant: str,
    column: str,
    mean: float,
    deviation: float,
) -> PublishedCell:
    ours = float(figures.means(column, METRIC, [variant])[0])
    several = figures.count(variant) > 1
    errors = (
        figures.over_seeds(column, METRIC, [variant])[0]
        if several
        else figures.over_samples(column, METRIC, [variant])
    )
    half = float(stats.t.ppf(0.975, errors.df[0]) * math.sqrt(errors.squared[0]))
    return PublishedCell(
        row=row,
        variant=variant,
        set=column,
        published=mean,
        published_sd=deviation,
        ours=ours,
        low=ours - half,
        high=ours + half,
        interval="" if math.isnan(half) else "training seeds" if several else "samples",
        decoding_sd=figures.decoding_sd(column, METRIC, variant),
    )


def _prompts(
    sizes: Mapping[str, int], figures: RunFigures | BoardFigures, column: str, variant: str
) -> tuple[float, float]:
    """The error over prompts where ours are not all of the published ones, else none."""
    if all(figures.side.prompts(name) == sizes.get(name) for name in figures.members(column)):
        return 0.0, math.inf
    errors = figures.over_samples(column, METRIC, [variant])
    return float(errors.squared[0]), float(errors.df[0])
