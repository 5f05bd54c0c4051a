"""A comparison for people: one list of paragraphs and tables, as Markdown or for the console."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdbench.compare.pairs import MAIN, Pair
from kdbench.compare.sides import RunSide
from kdbench.report.render import markdown_table
from kdbench.report.table import AVERAGE
from kdbench.report.words import p_value
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL

SHOWN = {"average": "rouge_l", "greedy": "rouge_l_greedy", "exact match": "exact_match"}
"""Title -> metric of the columns of differences."""


@dataclass(frozen=True)
class Grid:
    """A table: its header, its rows, and per row the columns that are beyond noise."""

    header: list[str]
    rows: list[list[str]]
    marked: list[set[int]]


Block = str | list[str] | Grid
"""A paragraph, a list, or a table."""


def to_markdown(pairs: Sequence[Pair]) -> str:
    """All comparisons as Markdown."""
    return "\n\n".join(block_markdown(block) for pair in pairs for block in blocks(pair)) + "\n"


def to_console(pairs: Sequence[Pair]) -> Group:
    """All comparisons for `rich.console.Console.print`."""
    return Group(*(block_console(block) for pair in pairs for block in blocks(pair)))


def blocks(pair: Pair) -> Iterator[Block]:
    """What is said of one pair of runs, in order."""
    yield f"# {pair.other.name} against {pair.first.name}"
    yield "## What differs in the spec"
    yield [_shortened(line) for line in (*pair.spec, *pair.definitions)] or "Nothing."
    yield "## What differs in code and machine"
    yield [_shortened(line) for line in pair.facts] or "Nothing that was recorded."
    yield "## What differs in the results"
    yield [*_coverage(pair), _identical(pair), _how(pair)]
    yield _grid(pair)
    yield [*_notes(pair)]


def _coverage(pair: Pair) -> Iterator[str]:
    yield f"{_count(len(pair.common), 'variant')} in both"
    for side, names in ((pair.first, pair.only_first), (pair.other, pair.only_other)):
        if names:
            yield f"only in {side.name}: {', '.join(names)}"
    for side, sets in ((pair.first, pair.other.sets), (pair.other, pair.first.sets)):
        if missing := [name for name in side.sets if name not in sets]:
            yield f"sets only in {side.name}, not compared: {', '.join(missing)}"
    for side in (pair.first, pair.other):
        if isinstance(side, RunSide) and side.open_trials:
            yield f"{side.name}: {_count(side.open_trials, 'trial')} not finished, left out"


def _identical(pair: Pair) -> str:
    same = [name for name in pair.common if name in pair.identical]
    text = f"identical: {len(same)} of {_count(len(pair.common), 'variant')}"
    if same and pair.with_board:
        text += " (all means, to the last digit)"
    elif same:
        text += " (every score of every sample"
        text += ", and every answer byte for byte)" if pair.same_answers else ")"
        if pair.same_answers is False:
            text += "; some of their answers differ"
    if 0 < len(same) < len(pair.common):
        text += f": {', '.join(same)}"
    if references := [name for name in pair.identical if name not in pair.common]:
        text += f"; {' and '.join(references)} too"
    return text


def _how(pair: Pair) -> str:
    """Over what the differences are taken."""
    row = _main(pair)[0]
    if row["pairing"] == "seed":
        seeds = ", ".join(map(str, pair.seeds))
        return (
            f"paired by training seed ({seeds}) and sample: the same initial student, batches and "
            "prompts"
        )
    unlike = [name for name, same in pair.pairing.samples.items() if not same]
    if unlike:
        reason = f"the samples of {', '.join(unlike)} are not the same"
        if not row["interval"]:
            reason += ", and the tables of a board do not hold their noise: no intervals"
        return f"unpaired: {reason}"
    if row["pairing"] == "none":
        return "unpaired: one training seed, and a published board holds no single scores"
    reason = pair.pairing.unseeded or "one of the runs has one training seed"
    return f"paired by sample, not by training seed: {reason}"


def _grid(pair: Pair) -> Grid:
    """The variants of both, the first run's best first, and then the references."""
    metrics = {
        title: metric for title, metric in SHOWN.items() if metric in set(pair.rows["metric"])
    }
    column = _column(pair)
    header = ["variant", pair.first.name, pair.other.name, "difference", "p"]
    header += [f"{title} diff." for title in metrics if title != "average"]
    rows, marked = [], []
    for row in _main(pair):
        cells = [row["variant"], f"{row['mean_first']:.2f}", f"{row['mean_other']:.2f}"]
        cells += [_difference(row), "identical" if row["identical"] else p_value(row["p_holm"])]
        marks = {3} if row["beyond_noise"] is True else set()
        for metric in list(metrics.values())[1:]:
            other = _row(pair, column, metric, row["variant"])
            if other["beyond_noise"] is True:
                marks.add(len(cells))
            cells.append(_difference(other))
        rows.append(cells)
        marked.append(marks)
    return Grid(header, rows, marked)


def _notes(pair: Pair) -> Iterator[str]:
    rows = _main(pair)
    tested = [row for row in rows if row["beyond_noise"] is not None]
    beyond = [row for row in tested if row["beyond_noise"]]
    if tested:
        up = sum(row["difference"] > 0 for row in beyond)
        yield (
            f"beyond noise (Holm's correction over {_count(len(tested), 'variant')}, 5 %): "
            f"{len(beyond)} of {len(tested)}, {up} up and {len(beyond) - up} down; they are "
            "marked above, each column a family of its own"
        )
        yield _meaning(pair, rows[0])
    n = min(rows[0]["n_seeds_first"], rows[0]["n_seeds_other"])
    smallest = smallest_sign_flip_p(n)
    if rows[0]["pairing"] == "seed" and smallest >= LEVEL:
        yield (
            f"{n} seeds can give no p below {smallest:.3g} in an exact sign-flip test, so what is "
            "beyond noise rests on normal errors"
        )
    if tau := _agreement(pair):
        yield tau


def _meaning(pair: Pair, row: dict[str, Any]) -> str:
    """What ± and p are about."""
    about = {
        "training seeds": "other trainings on the same prompts",
        "samples": "other prompts, and say nothing about other trainings",
        "training seeds and samples": "other trainings and other prompts",
    }
    pooled = {
        "pooled": ", with one error variance for all variants",
        "separate": ", each variant with its own variance",
    }.get(row["model"], "")
    return (
        f"difference: {pair.other.name} minus {pair.first.name}; ± (half of the 95 % interval, for "
        f"that variant alone) and p are about {about[row['interval']]}{pooled}"
    )


def _agreement(pair: Pair) -> str:
    if not pair.tau or set(pair.common) <= set(pair.identical):
        return ""
    main, *others = [
        f"{name} {tau.mean:.2f} ({tau.low:.2f} to {tau.high:.2f})"
        for name, tau in pair.tau.items()
        if not math.isnan(tau.mean)
    ] or ["not defined, all are ties"]
    beside = f"; {', '.join(others)}" if others else ""
    return (
        f"rank agreement of the {len(pair.common)} variants, Kendall's tau (95 % over variants): "
        f"{main}{beside}"
    )


def _column(pair: Pair) -> str:
    """The average where it can be compared, else the first set."""
    return AVERAGE if AVERAGE in set(pair.rows["set"]) else str(pair.rows["set"].iloc[0])


def _main(pair: Pair) -> list[dict[str, Any]]:
    frame = pair.rows[(pair.rows["set"] == _column(pair)) & (pair.rows["metric"] == MAIN)]
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in frame.to_dict("records")
    ]
    return sorted(rows, key=lambda row: (row["variant"] not in pair.common, -row["mean_first"]))


def _row(pair: Pair, column: str, metric: str, variant: str) -> dict[str, Any]:
    rows = pair.rows
    chosen = (rows["set"] == column) & (rows["metric"] == metric) & (rows["variant"] == variant)
    return {str(key): value for key, value in rows[chosen].iloc[0].items()}


def _difference(row: dict[str, Any]) -> str:
    if row["identical"]:
        return "0"
    half = (row["ci_high"] - row["ci_low"]) / 2
    text = f"{row['difference']:+.2f}"
    return text if math.isnan(half) else f"{text} ± {half:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _shortened(line: str) -> str:
    """A line with its digests cut to the length at which people compare them."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", line)


def block_markdown(block: Block) -> str:
    """A block as Markdown."""
    if isinstance(block, str):
        return block
    if isinstance(block, list):
        return "\n".join(f"* {line}" for line in block)
    rows = [
        [
            f"`{text}`" if index == 0 else f"**{text}**" if index in marked else text
            for index, text in enumerate(row)
        ]
        for row, marked in zip(block.rows, block.marked, strict=True)
    ]
    return "\n".join(markdown_table(block.header, rows))


def block_console(block: Block) -> RenderableType:
    """A block for `rich.console.Console.print`."""
    if isinstance(block, str):
        return Text(f"\n{block.lstrip('# ')}", style="bold" if block.startswith("#") else "")
    if isinstance(block, list):
        return Group(*(Text(f"* {line}") for line in block))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(block.header):
        table.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row, marked in zip(block.rows, block.marked, strict=True):
        table.add_row(
            *(
                Text(f"{text} *", "bold") if index in marked else Text(text)
                for index, text in enumerate(row)
            )
        )
    return table
