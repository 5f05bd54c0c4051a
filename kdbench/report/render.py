"""The table of a run for people: Markdown and console, sets as columns, notes beneath."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdbench.report.notes import SAMPLES_MARK, notes
from kdbench.report.table import AVERAGE, Board, Row


@dataclass(frozen=True)
class Cell:
    """A cell's text, and whether it stands out: undiverged and in the first tier of its column."""

    text: str
    bold: bool = False


def to_markdown(board: Board, title: str) -> str:
    """The table and its notes as Markdown.

    Args:
        board: of one run.
        title: the heading, usually the run's name.
    """
    header, rows = cells(board)
    lines = [f"# {title}", "", _markdown_row(header)]
    lines.append(_markdown_row(["---", *["---:"] * (len(header) - 1)]))
    for row in rows:
        name, *others = row
        texts = [f"**{cell.text}**" if cell.bold else cell.text for cell in others]
        lines.append(_markdown_row([f"`{name.text}`", *texts]))
    lines += ["", *(f"* {note}" for note in notes(board))]
    return "\n".join(lines) + "\n"


def to_console(board: Board, title: str) -> Group:
    """The table and its notes for `rich.console.Console.print`.

    Args:
        board: of one run.
        title: the heading, usually the run's name.
    """
    header, rows = cells(board)
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
    return Group(table, *(Text(f"* {note}") for note in notes(board)))


def cells(board: Board) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows: the average first, greedy beside sampled decoding, one column per set."""
    keys = {"average": (AVERAGE, "rouge_l"), "greedy": (AVERAGE, "rouge_l_greedy")}
    keys |= {name: (name, "rouge_l") for name in board.sets}
    keys["exact match"] = (AVERAGE, "exact_match")
    shown = {
        title: key
        for title, key in keys.items()
        if any((variant, *key) in board.rows for variant in board.trials)
    }
    header = ["variant", "tier", *shown, "diverged", "clipped"]
    return header, [_cells_of(board, variant, list(shown.values())) for variant in board.trials]


def _cells_of(board: Board, variant: str, keys: Sequence[tuple[str, str]]) -> list[Cell]:
    rows = [board.rows[variant, *key] for key in keys]
    main = rows[0]
    figures = board.stability.get(variant)
    clipped = math.nan if figures is None else figures.clipped_share
    return [
        Cell(variant),
        Cell("" if main.tier is None else str(main.tier)),
        *(Cell(_figure(row), bold=row.tier == 1 and not row.n_diverged) for row in rows),
        Cell("" if figures is None else _diverged(main)),
        Cell("" if math.isnan(clipped) else f"{100 * clipped:.0f} %"),
    ]


def _figure(row: Row) -> str:
    if math.isnan(row.ci_low):
        return f"{row.mean:.2f}"
    mark = SAMPLES_MARK if row.interval == "samples" else ""
    return f"{row.mean:.2f} ± {(row.ci_high - row.ci_low) / 2:.2f}{mark}"


def _diverged(row: Row) -> str:
    share = f"{row.n_diverged}/{row.n_seeds}"
    if math.isnan(row.mean_undiverged):
        return share
    return f"{share} (else {row.mean_undiverged:.2f})"


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
