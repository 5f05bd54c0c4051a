"""The cells of a published table, each beside the figure of a run and judged.

The question is whether the published figure could be one more training of what was run here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdbench.base.errors import UserError
from kdbench.compare.published import Published, PublishedTable
from kdbench.compare.sides import AnySide, RunSide
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


class Verdict(NamedTuple):
    """What is said of a cell; `half` is half the width of the limits, NaN where there are none."""

    half: float
    verdict: str
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
    side: AnySide,
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
    side = side.on(sets, trained)
    if trained and isinstance(side, RunSide) and not side.seeds:
        raise UserError(f"{side.run.path}: no training seed is finished for all rows; run it again")
    columns = [*sets, AVERAGE] if table.sets else [AVERAGE]
    cells = []
    for row, variant in names.items():
        for column in columns:
            mean, deviation = table.cell(table.rows[row], column, sets)
            cells.append(_ours(side, PublishedCell(row, variant, column, mean, deviation)))
    if not judged:
        return cells
    if not table.sets and len(sets) < len(published.sizes):
        return [replace(cell, reason="the run lacks sets of this average") for cell in cells]
    several = [name for name in trained if side.count(name) > 1]
    errors = {column: _errors(side, column, several) for column in columns}
    return [
        cell
        if math.isnan(cell.published)
        else _judged(side, cell, errors[cell.set].get(cell.variant), published.sizes)
        for cell in cells
    ]


def _ours(side: AnySide, cell: PublishedCell) -> PublishedCell:
    """A cell with our figure and its interval."""
    column = cell.set, METRIC, [cell.variant]
    several = side.count(cell.variant) > 1
    errors = side.over_seeds(*column)[0] if several else side.over_samples(*column)
    ours = float(side.means(*column)[0])
    half = float(stats.t.ppf(0.975, errors.df[0]) * math.sqrt(errors.squared[0]))
    return replace(
        cell,
        ours=ours,
        low=ours - half,
        high=ours + half,
        interval="" if math.isnan(half) else "training seeds" if several else "samples",
        decoding_sd=side.decoding_sd(cell.set, METRIC, cell.variant),
    )


def _errors(side: AnySide, column: str, variants: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Squared standard error over training seeds and its df, of variants with several."""
    if not variants:
        return {}
    errors = side.over_seeds(column, METRIC, variants)[0]
    pairs = zip(errors.squared.tolist(), errors.df.tolist(), strict=True)
    return dict(zip(variants, pairs, strict=True))


def _judged(
    side: AnySide,
    cell: PublishedCell,
    error: tuple[float, float] | None,
    sizes: Mapping[str, int],
) -> PublishedCell:
    """A cell with its verdict; our error over prompts counts where ours are not all of theirs."""
    prompts = 0.0, math.inf
    if any(side.n_prompts(name) != sizes.get(name) for name in side.members(cell.set)):
        errors = side.over_samples(cell.set, METRIC, [cell.variant])
        prompts = float(errors.squared[0]), float(errors.df[0])
    difference = cell.ours - cell.published
    found = judge(difference, side.count(cell.variant), error, cell.published_sd, prompts)
    return replace(cell, difference=difference, **found._asdict())
