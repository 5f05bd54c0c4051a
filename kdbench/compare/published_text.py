"""A reproduction for people: paragraphs, lists and tables, as Markdown or for the console."""

import math
from collections import Counter
from collections.abc import Iterator

from rich.console import Group

from kdbench.compare.published_cells import PublishedCell
from kdbench.compare.published_reproduction import Reproduction
from kdbench.compare.published_tables import Table
from kdbench.compare.published_verdict import CANNOT_TELL, LEVEL, NOT_REPRODUCED, REPRODUCED, RULE
from kdbench.compare.text import Block, Grid, block_console, block_markdown
from kdbench.report.table import AVERAGE
from kdbench.report.words import number
from kdbench.stats.intervals import Interval

CONFIDENCE = {
    "A": "the authors' own file",
    "B": "an independent re-run",
    "C": "a transcription of the paper by others",
}
INTERVAL = "95 %: interval of our mean over training seeds, or over samples where marked †"
COLUMNS = (
    f"{INTERVAL}; sd: ours over decoding seeds (ddof 0); diff: ours minus published; limits: how "
    "far one more training of ours might lie; * beyond them"
)
CHANCE = (
    f"limits are for one cell each: if all agreed, about {(1 - LEVEL) * 100:.0f} % of the cells "
    "with limits would still lie beyond them, and cells of one row or one set move together"
)
UNSEEN = (
    "a published figure without training-seed variance cannot say how far another training of its "
    "authors would have landed: agreement here means that it could be one of our trainings, "
    "disagreement that it is hardly one, not which side is off"
)
TINY = (
    "RANK AGREEMENT ONLY: another suite with other models and records, so its figures cannot be "
    "compared with the published ones and no cell has a verdict. This says whether the order of "
    "the rows carries over, not whether the table was reproduced"
)


def to_markdown(found: Reproduction) -> str:
    """The comparison as Markdown."""
    return "\n\n".join(block_markdown(block) for block in blocks(found)) + "\n"


def to_console(found: Reproduction) -> Group:
    """The comparison for `rich.console.Console.print`."""
    return Group(*(block_console(block) for block in blocks(found)))


def blocks(found: Reproduction) -> Iterator[Block]:
    """What is said of one table, in order."""
    table = found.table
    scale = " (tiny scale: rank agreement only)" if found.tiny else ""
    yield f"# {table.id} beside {', '.join(found.runs)}{scale}"
    yield _answer(found)
    yield [*source(table), *([TINY] if found.tiny else [])]
    if found.tiny:
        yield _orders(found)
        yield [INTERVAL]
    else:
        yield _verdicts(found)
        yield [f"[{mark}] {reason}" for mark, reason in enumerate(_reasons(found), 1)]
    yield "## Rank agreement of the rows: Kendall's tau"
    yield [*_agreement(found)]
    if found.deviations:
        yield "## What is not as the suite says"
        yield found.deviations
    if found.missing:
        yield "## Rows without figures of ours"
        yield [f"{name}: {reason}" for name, reason in found.missing.items()]
    yield "## Inferred, not stated by the source"
    yield inferred(found)
    if not found.tiny:
        yield "## How to read it"
        yield [COLUMNS, RULE, UNSEEN, CHANCE]


def _answer(found: Reproduction) -> str:
    """The outcome in two sentences."""
    order = f"Kendall's tau of {found.ranked} rows, on the average: {_tau(found.tau[AVERAGE])}."
    if found.tiny:
        return f"{order} Nothing else is compared."
    words = Counter(cell.verdict for cell in found.cells if cell.verdict)
    counts = [f"{words[word]} {word}" for word in (REPRODUCED, NOT_REPRODUCED, CANNOT_TELL)]
    return f"Of {words.total()} cells: {', '.join(counts)}. {order}"


def _reasons(found: Reproduction) -> list[str]:
    return list(dict.fromkeys(cell.reason for cell in found.cells if cell.reason))


def source(table: Table) -> Iterator[str]:
    """Where a table comes from, how sure it is, and what its deviations cover."""
    paper = table.paper
    where = ", ".join(filter(None, (paper.venue, paper.arxiv and f"arXiv:{paper.arxiv}")))
    yield f"{paper.title}{f' ({where})' if where else ''}; {table.source}"
    yield f"confidence {table.confidence}: {CONFIDENCE[table.confidence]}"
    if table.std:
        yield f"published ± is the standard deviation over {table.std}; no training-seed variance"
    else:
        yield "no published standard deviations, neither over decoding nor over training seeds"
    if table.note:
        yield table.note


def inferred(found: Reproduction) -> list[str]:
    """Everything that a comparison assumes and the source does not state."""
    table = found.table
    rows = [
        f"{name}: {row.inferred} (runs as {row.variant})"
        for name, row in table.rows.items()
        if row.inferred
    ]
    general = [] if found.tiny else found.published.inferred
    return [*general, *table.inferred, *rows] or ["Nothing."]


def _verdicts(found: Reproduction) -> Grid:
    decodings = not all(math.isnan(cell.decoding_sd) for cell in found.cells)
    sd = ["sd"] if decodings else []
    header = ["row", "set", "published", "ours", "95 %", *sd, "diff", "± limits", "verdict"]
    reasons, rows, marked = _reasons(found), [], []
    for cell in found.cells:
        note = f"[{reasons.index(cell.reason) + 1}]" if cell.reason else ""
        rows.append(
            [
                cell.row,
                cell.set,
                _with_sd(cell),
                number(cell.ours),
                _limits(cell),
                *([number(cell.decoding_sd)] if decodings else []),
                "" if math.isnan(cell.difference) else f"{cell.difference:+.2f}",
                number(cell.half),
                f"{cell.verdict} {note}".strip(),
            ]
        )
        marked.append({len(header) - 1} if cell.verdict == NOT_REPRODUCED else set())
    return Grid(header, rows, marked)


def _orders(found: Reproduction) -> Grid:
    """The rows by their published average, with both ranks."""
    cells = [cell for cell in found.cells if cell.set == AVERAGE]
    ranked = [
        cell
        for cell in cells
        if not found.table.rows[cell.row].is_reference and not math.isnan(cell.published)
    ]
    ranks = [
        _ranks({cell.row: cell.published for cell in ranked}),
        _ranks({cell.row: cell.ours for cell in ranked}),
    ]
    cells.sort(key=lambda cell: (cell.row in ranks[0], cell.published), reverse=True)
    columns = list(dict.fromkeys(cell.set for cell in found.cells if cell.set != AVERAGE))
    published = f"published, mean of {', '.join(columns) or 'all sets'}"
    header = ["row", "variant", published, "published rank", "our rank", "ours", "95 %"]
    rows = [
        [
            cell.row,
            cell.variant,
            _with_sd(cell),
            *(rank.get(cell.row, "") for rank in ranks),
            number(cell.ours),
            _limits(cell),
        ]
        for cell in cells
    ]
    return Grid(header, rows, [set() for _ in rows])


def _ranks(figures: dict[str, float]) -> dict[str, str]:
    """One for the highest figure."""
    return {
        name: str(1 + sum(other > figure for other in figures.values()))
        for name, figure in figures.items()
    }


def _agreement(found: Reproduction) -> Iterator[str]:
    for name, tau in found.tau.items():
        yield f"{name}: {_tau(tau)}"
    yield "tau runs from -1 to 1; the teacher is left out, and near-ties lower it"
    if found.ranked < 3:
        yield "fewer than three rows say nothing about an order"
    if found.lacking:
        yield (
            f"sets that the run does not have: {', '.join(found.lacking)}; averages are over the "
            "sets that both have"
            + ("" if found.table.sets else ", and the published ones over all")
        )


def _with_sd(cell: PublishedCell) -> str:
    if math.isnan(cell.published):
        return "not known"
    text = number(cell.published)
    return text if math.isnan(cell.published_sd) else f"{text} ± {cell.published_sd:.2f}"


def _limits(cell: PublishedCell) -> str:
    if math.isnan(cell.low):
        return ""
    mark = "†" if cell.interval == "samples" else ""
    return f"{cell.low:.2f} to {cell.high:.2f}{mark}"


def _tau(tau: Interval) -> str:
    if math.isnan(tau.mean):
        return "not defined"
    return f"{tau.mean:.2f} (95 % over rows: {tau.low:.2f} to {tau.high:.2f})"
