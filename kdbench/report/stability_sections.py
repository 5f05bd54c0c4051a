"""What stability.md says beside its table: gradient norms, and where losses spiked."""

import math
from collections.abc import Sequence

import numpy as np

from kdbench.report.evidence_tables import spikes_frame
from kdbench.report.render import markdown_table
from kdbench.report.table import Board
from kdbench.runs.results import SeedGrid
from kdbench.stats.intervals import Floats, over_seeds

SPIKES_SHOWN = 12


def gradients_section(board: Board, order: Sequence[str]) -> list[str]:
    """Lines on the gradient norms; they have no better end, so intervals and no tier.

    Args:
        board: of one run.
        order: the variants, as they shall stand.
    """
    grid = SeedGrid(tuple(board.seeds), tuple(board.init_seeds))
    rows = []
    for name in order:
        trials = grid.of(board.stability[name].trials)
        columns = (
            grid.by_seed([own.grad_norm_median for own in trials]),
            grid.by_seed([own.grad_norm_p99 for own in trials]),
            100 * grid.by_seed([own.clipped_share for own in trials]),
        )
        rows.append([f"`{name}`", *map(_with_interval, columns)])
    if not any(any(row[1:]) for row in rows):
        return []
    header = ["variant", "median", "99th percentile", "clipped %"]
    return [
        "",
        "## Gradient norms before clipping",
        "",
        *markdown_table(header, rows),
        "",
        "± as above. Each objective has its own scale, so less is not better; `clipped` is the "
        "share of steps.",
    ]


def spikes_section(board: Board) -> list[str]:
    """Lines on the largest loss spikes, and on who else spiked on the same batch."""
    frame = spikes_frame(board)
    lines = ["", "## Loss spikes", ""]
    if frame.empty:
        return [*lines, "None."]
    shown = frame.sort_values("z", ascending=False, kind="stable").head(SPIKES_SHOWN)
    students = ["initial student"] if len(board.init_seeds) > 1 else []
    header = ["variant", "seed", *students, "step", "length", "z", "others on this batch"]
    rows = [
        [
            f"`{row['variant']}`",
            str(row["seed"]),
            *[str(row["init_seed"]) for _ in students],
            str(row["step"]),
            str(row["length"]),
            f"{row['z']:.0f}",
            str(row["others"]),
        ]
        for row in shown.to_dict("records")
    ]
    seed, step = shown.iloc[0][["seed", "step"]]
    return [
        *lines,
        *markdown_table(header, rows),
        "",
        f"The largest {len(rows)} of {len(frame)}; spikes.csv has all. `others on this batch`: the "
        "variants whose loss spiked in the same step of the same seed, so on the same batch. What "
        f"was in it: `kdbench data batch RUN --seed {seed} --step {step}`.",
    ]


def _with_interval(values: Floats) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    interval = over_seeds(finite)
    half = interval.high - interval.mean
    return f"{interval.mean:.3g}" + ("" if math.isnan(half) else f" ± {half:.2g}")
