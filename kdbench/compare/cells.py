"""The cells of a published table, each beside the figure of a run and judged.

The question is whether the published figure could be one more training of what was run here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from kdbench.base.errors import UserError
from kdbench.compare.figures import BoardFigures, RunFigures, figures_of
from kdbench.compare.published import Published, PublishedRow, PublishedTable
from kdbench.compare.sides import BoardSide, RunSide
from kdbench.report.table import AVERAGE
from kdbench.stats.intervals import satterthwaite

METRIC = "rouge_l"
REPRODUCED, NOT_REPRODUCED, CANNOT_TELL = "reproduced", "not reproduced", "cannot tell"
RESOLUTION = 1.0
"""ROUGE-L points that a comparison has to resolve: what leaving out no_repeat_ngram_size is worth,
the smallest known slip of the protocol."""
DECODINGS = 5
"""Decoding seeds behind a published figure and its standard deviation."""
LEVEL = 0.95
"""Of the limits."""


@dataclass(frozen=True)
class Verdict:
    """What is said of a cell; `half` is half the width of the limits, NaN where there are none."""

    half: float
    word: str
    reason: str = ""


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
    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    decoding_sd: float = math.nan
    difference: float = math.nan
    half: float = math.nan
    verdict: str = ""
    reason: str = ""


def judge(
    difference: float,
    n: int,
    error: tuple[float, float] | None,
    published_sd: float = math.nan,
    prompts: tuple[float, float] = (0.0, math.inf),
) -> Verdict:
    """Holds a difference against the prediction limits of one more training.

    The limits are t sqrt(s^2 (1 + 1/n) + sd^2 / 4 + e^2): s over our training seeds, the published
    sd, and e, our error over prompts.

    Args:
        difference: ours minus published.
        n: our training seeds.
        error: squared standard error of our mean over training seeds and the degrees of freedom
            it was estimated with; None where there is one seed.
        published_sd: over decoding seeds, ddof 0; NaN where it is not published.
        prompts: squared error of our mean over prompts and its degrees of freedom, where the
            published figure is over other ones.
    """
    if error is None:
        return Verdict(math.nan, CANNOT_TELL, "one training seed")
    parts, freedom = [error[0] * (n + 1)], [error[1]]
    if not math.isnan(published_sd):
        parts.append(published_sd**2 / (DECODINGS - 1))
        freedom.append(DECODINGS - 1)
    if prompts[0] != 0:
        parts.append(prompts[0])
        freedom.append(prompts[1])
    if not np.isfinite(parts).all():
        reason = "other prompts or sets, whose noise a board does not hold"
        return Verdict(math.nan, CANNOT_TELL, reason)
    quantile = stats.t.ppf((1 + LEVEL) / 2, satterthwaite(parts, freedom))
    half = float(quantile * math.sqrt(math.fsum(parts)))
    if abs(difference) > half:
        return Verdict(half, NOT_REPRODUCED)
    if half > RESOLUTION:
        return Verdict(half, CANNOT_TELL, f"limits wider than {RESOLUTION:g} point")
    return Verdict(half, REPRODUCED)


def read_cells(
    published: Published,
    table: PublishedTable,
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
    half, word, reason = verdict.half, verdict.word, verdict.reason
    return replace(cell, difference=difference, half=half, verdict=word, reason=reason)


def _published(
    table: PublishedTable, row: PublishedRow, column: str, sets: Sequence[str]
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
