"""scores.parquet: one row per (set, sample, decoding seed, metric), checked where it is read."""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base.errors import UserError, first_line
from kdbench.stats.intervals import Floats

MAX_ROWS = 5_000_000
"""Of a file: a few hundred bytes of Parquet can stand for billions of equal rows."""
METRICS = ("rouge_l", "rouge_l_greedy", "exact_match", "length", "distinct_2")
WHOLE_SET = -1
"""The sample of a metric that has one value per set."""
SCORE_COLUMNS = {
    "set": pa.string(),
    "sample": pa.int64(),
    "decoding_seed": pa.int64(),
    "metric": pa.string(),
    "value": pa.float64(),
}
"""The columns of scores.parquet."""


@dataclass(frozen=True)
class Scores:
    """The scores of one metric on one set.

    Attributes:
        seeds: of the decoding, in ascending order; -1 for greedy.
        values: [decoding seeds, samples], the samples in their order.
    """

    seeds: tuple[int, ...]
    values: Floats


def scores_of(file: Path | io.BytesIO, name: str) -> dict[tuple[str, str], Scores]:
    """The scores in a file, per (set, metric).

    Args:
        file: what `kdbench.score.write_scores` wrote.
        name: what messages call it.

    Raises:
        UserError: it is no such file, lacks a score or holds one twice, or holds one that the
            metric cannot give.
    """
    try:
        with pq.ParquetFile(file) as held:
            if held.metadata.num_rows > MAX_ROWS:
                raise UserError(f"{name}: {held.metadata.num_rows:,} rows; at most {MAX_ROWS:,}")
            table = held.read().select(list(SCORE_COLUMNS))
        rows = table.to_pandas()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{name}: no table of scores ({first_line(error)})") from error
    types = [pa.string() if kind == pa.large_string() else kind for kind in table.schema.types]
    if types != list(SCORE_COLUMNS.values()):
        raise UserError(f"{name}: no table of scores (its columns are {table.schema.types})")
    scores = {}
    rows = rows.sort_values(["decoding_seed", "sample"])
    for (place, metric), group in rows.groupby(["set", "metric"], sort=False):
        seeds = tuple(map(int, group["decoding_seed"].unique()))
        samples = group["sample"].unique()
        values = group["value"].to_numpy()
        top = math.inf if metric == "length" else 100.0
        if metric not in METRICS:
            raise UserError(f"{name}: {metric} on {place} is no score of a run")
        if group.duplicated(["decoding_seed", "sample"]).any() or len(group) != len(seeds) * len(
            samples
        ):
            raise UserError(f"{name}: {metric} on {place} lacks a score, or holds one twice")
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
            raise UserError(f"{name}: {metric} on {place} has a value outside 0 to {top:g}")
        if samples.tolist() not in ([WHOLE_SET], list(range(len(samples)))):
            raise UserError(f"{name}: {metric} on {place} lacks samples")
        scores[place, metric] = Scores(seeds, values.reshape(len(seeds), len(samples)))
    return scores
