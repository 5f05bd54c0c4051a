"""A run's table: what stands in its cells, and the Markdown, LaTeX and console that show it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.base.templates import cell, number, render
from kdbench.report.markdown import ConsoleMarkdown
from kdbench.report.notes import SAMPLES_MARK, notes
from kdbench.report.table import AVERAGE, Board, Row
from kdbench.runs.results import Cost, mean_cost

COSTS: dict[str, Callable[[Cost], float]] = {
    "train s": lambda cost: cost.train_seconds,
    "teacher passes": lambda cost: cost.teacher_passes,
    "generated": lambda cost: cost.generated_tokens,
}
"""What each training took; of the last two, those that some variant needed."""


@dataclass(frozen=True)
class TableCell:
    """What stands in one cell; `value` is the number that the text says, NaN where it says none.

    Bold is what is undiverged and in the first tier of its column.
    """

    text: str
    bold: bool = False
    value: float = math.nan


def to_markdown(board: Board, title: str, *, sets: bool = True) -> str:
    """The table and its notes as Markdown; `sets` says whether each set has a column."""
    return _filled("leaderboard.md", board, title, sets=sets)


def to_latex(board: Board, title: str) -> str:
    r"""The table as a `tabular` that needs `\usepackage{booktabs}`, and its notes as comments.

    Uncommented, the notes are the items of an `itemize`.
    """
    return _filled("leaderboard.tex", board, title, sets=True)


def to_console(board: Board, title: str) -> ConsoleMarkdown:
    """The Markdown for `rich.console.Console.print`.

    It leaves out the columns of single sets, so that it fits into 120 characters.
    """
    return ConsoleMarkdown(to_markdown(board, title, sets=False))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(map(cell, row))} |" for row in (header, rule, *rows)]


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
    share = f"{row.n_diverged}/{row.n_trials}"
    if math.isnan(row.mean_undiverged):
        return share
    return f"{share} (else {row.mean_undiverged:.2f})"


def _filled(template: str, board: Board, title: str, *, sets: bool) -> str:
    header, rows = cells(board, columns(board, sets=sets))
    return render(f"report/{template}", title=title, header=header, rows=rows, notes=notes(board))
