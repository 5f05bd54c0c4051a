"""The table of a run for people: Markdown, with sets as columns, and console; notes beneath."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench.report.notes import SAMPLES_MARK, notes
from kdbench.report.table import AVERAGE, Board, Row
from kdbench.report.words import number
from kdbench.runs.results import Cost, mean_cost

COSTS: dict[str, Callable[[Cost], float]] = {
    "train s": lambda cost: cost.train_seconds,
    "teacher passes": lambda cost: cost.teacher_passes,
    "generated": lambda cost: cost.generated_tokens,
}
"""What each training took; of the last two, those that some variant needed."""


@dataclass(frozen=True)
class TableCell:
    """A cell's text; whether it stands out: undiverged and in the first tier of its column; and

    the number that it says, NaN where it says none.
    """

    text: str
    bold: bool = False
    value: float = math.nan


def to_markdown(board: Board, title: str) -> str:
    """The table and its notes as Markdown.

    Args:
        board: of one run.
        title: the heading, usually the run's name.
    """
    header, rows = cells(board, columns(board))
    texts = [
        [
            f"`{name.text}`",
            *(f"**{cell.text}**" if cell.bold else cell.text for cell in others),
        ]
        for name, *others in rows
    ]
    lines = [f"# {title}", "", *markdown_table(header, texts)]
    lines += ["", *(f"* {note}" for note in notes(board))]
    return "\n".join(lines) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [_markdown_row(row) for row in (header, rule, *rows)]


def to_console(board: Board, title: str) -> Group:
    """The table and its notes for `rich.console.Console.print`.

    It leaves out the columns of single sets, so that it fits into 120 characters.

    Args:
        board: of one run.
        title: the heading, usually the run's name.
    """
    header, rows = cells(board, columns(board, sets=False))
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(Text(_stacked(name)), justify="right", overflow="fold")
    for row in rows:
        texts = [
            _stacked(cell.text) if name == "diverged" else cell.text
            for name, cell in zip(header, row, strict=True)
        ]
        styles = ["bold" if cell.bold else "" for cell in row]
        table.add_row(*map(Text, texts, styles))
    return Group(table, *(Text(f"* {note}") for note in notes(board)))


def columns(board: Board, *, sets: bool = True) -> dict[str, tuple[str, str]]:
    """Title -> (set, metric): the average first, greedy beside sampled, then each set."""
    keys = {"average": (AVERAGE, "rouge_l"), "greedy": (AVERAGE, "rouge_l_greedy")}
    keys |= {name: (name, "rouge_l") for name in board.sets if sets}
    keys["exact match"] = (AVERAGE, "exact_match")
    return {
        title: key
        for title, key in keys.items()
        if any((variant, *key) in board.rows for variant in board.trials)
    }


def cells(
    board: Board, shown: Mapping[str, tuple[str, str]]
) -> tuple[list[str], list[list[TableCell]]]:
    """Header and rows of the table with these columns of figures; the tier is the first one's."""
    costs = {variant: mean_cost(group) for variant, group in board.costs().items()}
    taken = [
        title for title in COSTS if title == "train s" or any(map(COSTS[title], costs.values()))
    ]
    deviation = ["decoding sd"] if board.decodings else []
    header = ["variant", "tier", *shown, *deviation, "diverged", "clipped", *taken]
    rows = [
        [
            *_cells_of(board, variant, list(shown.values())),
            *(_cost(costs.get(variant), title) for title in taken),
        ]
        for variant in board.trials
    ]
    return header, rows


def _cells_of(board: Board, variant: str, keys: Sequence[tuple[str, str]]) -> list[TableCell]:
    rows = [board.rows[variant, *key] for key in keys]
    main = rows[0]
    figures = board.stability.get(variant)
    clipped = math.nan if figures is None else figures.clipped_share
    deviation = (
        [TableCell(number(main.sd_decoding), value=main.sd_decoding)] if board.decodings else []
    )
    return [
        TableCell(variant),
        TableCell("") if main.tier is None else TableCell(str(main.tier), value=main.tier),
        *(TableCell(_figure(row), row.tier == 1 and not row.n_diverged, row.mean) for row in rows),
        *deviation,
        TableCell("") if figures is None else TableCell(_diverged(main), value=main.n_diverged),
        TableCell("" if math.isnan(clipped) else f"{100 * clipped:.0f} %", value=clipped),
    ]


def _figure(row: Row) -> str:
    if math.isnan(row.ci_low):
        return f"{row.mean:.2f}"
    mark = SAMPLES_MARK if row.interval == "samples" else ""
    return f"{row.mean:.2f} ± {(row.ci_high - row.ci_low) / 2:.2f}{mark}"


def _cost(cost: Cost | None, title: str) -> TableCell:
    if cost is None:
        return TableCell("")
    figure = COSTS[title](cost)
    if figure < 10:
        text = f"{figure:.2g}"
    else:
        text = f"{figure:.0f}" if figure < 10_000 else f"{figure / 1000:.0f}k"
    return TableCell(text, value=figure)


def _diverged(row: Row) -> str:
    share = f"{row.n_diverged}/{row.n_seeds * row.n_init_seeds}"
    if math.isnan(row.mean_undiverged):
        return share
    return f"{share} (else {row.mean_undiverged:.2f})"


def _stacked(text: str) -> str:
    """Word under word, since rich would narrow every other column before it wraps this one."""
    return text.replace(" ", "\n")


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
