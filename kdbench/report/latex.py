r"""The table of a run as LaTeX: a booktabs tabular to \input, with its notes as comments."""

import re
from collections.abc import Sequence

from kdbench.report.notes import notes
from kdbench.report.render import TableCell, cells, columns
from kdbench.report.table import Board

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": r"$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "†": r"\textsuperscript{$\dagger$}",
    "…": r"\ldots{}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
}


def to_latex(board: Board, title: str) -> str:
    r"""The table as a `tabular` that needs `\usepackage{booktabs}`, and its notes as comments.

    Uncommented, the notes are the items of an `itemize`.

    Args:
        board: of one run.
        title: usually the run's name; it stands in the first comment.
    """
    header, rows = cells(board, columns(board))
    lines = [
        rf"% {' '.join(title.split())}: needs \usepackage{{booktabs}}; the notes stand below.",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        _row([escape(name) for name in header]),
        r"\midrule",
        *(_row(_texts(row)) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"% \item {_note(note)}" for note in notes(board)),
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; what not every font and encoding has becomes its number."""
    return "".join(_ESCAPES.get(character) or _plain(character) for character in text)


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    known = character.isascii() and character.isprintable()
    return character if known else f"[U+{ord(character):04X}]"


def _texts(row: Sequence[TableCell]) -> list[str]:
    name, *others = row
    texts = [escape(cell.text) for cell in others]
    bold = [cell.bold for cell in others]
    return [
        rf"\texttt{{{escape(name.text)}}}",
        *(rf"\textbf{{{text}}}" if b else text for text, b in zip(texts, bold, strict=True)),
    ]


def _row(texts: Sequence[str]) -> str:
    return rf"{' & '.join(texts)} \\"


def _note(note: str) -> str:
    """Escaped, with `code` in typewriter type."""
    parts = re.split("`([^`]*)`", note)
    return "".join(
        rf"\texttt{{{escape(part)}}}" if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
