"""What people read is a template; what it says is passed in.

A value that a template speaks of and that is missing is an error. In templates whose name ends in
`.html` every value is escaped; in `.md` a name goes through `code`, other text that people chose
through `markdown`, a table's cell through `cell`; in `.tex` every text through `tex`.
"""

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from kdbench.base.plain import printable

ROOMS = Path(__file__).resolve().parents[1]

_TEX = {
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


def render(name: str, **values: Any) -> str:
    """A template, `<room>/<file>` of `kdbench/<room>/templates/<file>`, filled."""
    return _environment().get_template(name).render(values)


def paragraphs(name: str, **values: Any) -> list[str]:
    """The paragraphs of a filled template, each on one line, without those that came out empty.

    Blank lines part them, so that a template can be wrapped like any other text.
    """
    parts = re.split(r"\n\s*\n", render(name, **values))
    return [" ".join(part.split()) for part in parts if part.strip()]


def document(name: str, **values: Any) -> str:
    """A filled Markdown template, with each paragraph and each item of a list on one line.

    So a template can be wrapped like any other text; rows of tables and headings stay as they are.
    """
    lines: list[str] = []
    for line in map(str.strip, render(name, **values).splitlines()):
        joins = lines and lines[-1] and not lines[-1].startswith(("#", "|"))
        if joins and line and not line.startswith(("#", "|", "* ")):
            lines[-1] += f" {line}"
        elif line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip() + "\n"


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number with so many decimals; nothing where it is not known."""
    return "" if math.isnan(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def p_value(value: float) -> str:
    """Three decimals; nothing where it is not known."""
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(n: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n} {what}{'s' * (n != 1)}"


def listed(items: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(items)
    return f" {last} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def cell(text: object) -> str:
    """Text that stays in its cell of a Markdown table."""
    return _one_line(text).replace("|", "\\|")


def code(text: object) -> str:
    """A code span of Markdown that shows the text as it is, on one line and with its backticks."""
    text = _one_line(text)
    runs = re.findall("`+", text)
    fence = "`" * (1 + max(map(len, runs), default=0))
    return f"{fence} {text} {fence}" if runs else f"{fence}{text}{fence}"


def markdown(text: str) -> str:
    """Text on one line that Markdown prints as it is: no emphasis, link, code or markup."""
    special = r"[\\`*\[\]<>|&~#]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(special, r"\\\g<0>", _one_line(text))


def _one_line(text: object) -> str:
    return printable(" ".join(str(text).split()))


def tex(text: str) -> str:
    """Text that LaTeX prints as it is; what not every font and encoding has becomes its number."""
    return "".join(_TEX.get(character) or _plain(character) for character in text)


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    known = character.isascii() and character.isprintable()
    return character if known else f"[U+{ord(character):04X}]"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (number, p_value, count, listed, cell, code, markdown, tex)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals["count"] = count
    return environment


def _source(name: str) -> str:
    room, _, file = name.partition("/")
    return (ROOMS / room / "templates" / file).read_text(encoding="utf-8")
