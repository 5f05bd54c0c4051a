"""The reports' own Markdown on a page and on the console, where names come from users."""

import re
from collections.abc import Sequence
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.text import Text

LINKING = ("link", "image", "autolink", "reference", "html_inline", "html_block", "entity")
"""Of Markdown, what a page whose names come from users does without."""
LONGEST_NAME = 48
"""Characters of a first column that stay on one line."""


def from_markdown(text: str, deeper: int) -> Markup:
    """A report's Markdown: paragraphs, lists, code, and tables that scroll by themselves.

    Markup and links within it stay text, and no attribute sets a style, which the page's policy
    would refuse. The first heading, its title, is left out; the others go down by `deeper` levels.
    """
    parser = MarkdownIt("commonmark").enable("table").disable(list(LINKING))
    tokens = parser.parse(text)
    if tokens and tokens[0].type == "heading_open":
        tokens = tokens[3:]
    label, shown = "", list[Token]()
    for place, token in enumerate(tokens):
        token.attrs.pop("style", None)
        if token.type == "heading_open":
            label = re.sub("`", "", tokens[place + 1].content)
        if token.tag in ("h1", "h2", "h3"):
            token.tag = f"h{int(token.tag[1]) + deeper}"
        if token.type in ("th_open", "td_open", "td_close"):
            _head(token, tokens, place)
        shown += _wrapped(token, label)
    return Markup(parser.renderer.render(shown, parser.options, {}))


def _head(token: Token, tokens: Sequence[Token], place: int) -> None:
    """The first cell of a row is its head."""
    first = tokens[place - (1 if token.nesting > 0 else 3)].type == "tr_open"
    if token.tag == "td" and first:
        token.tag = "th"
    if token.nesting > 0 and token.tag == "th":
        token.attrs["scope"] = "row" if token.type == "td_open" else "col"


def _wrapped(token: Token, label: str) -> list[Token]:
    if token.type == "table_open":
        attributes = {"class": "scroll", "role": "region", "aria-label": label, "tabindex": "0"}
        return [Token("div_open", "div", 1, attrs=dict(attributes), block=True), token]
    if token.type == "table_close":
        return [token, Token("div_close", "div", -1, block=True)]
    return [token]


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = [] if self.header is None or self.header.row is None else self.header.row.cells
        rows = [] if self.body is None else [row.cells for row in self.body.rows]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place, head in enumerate(header):
            texts = [row[place].content.plain for row in rows]
            if place == 0:
                whole = max(map(len, texts), default=0) <= LONGEST_NAME
            else:
                whole = not any(re.search("[a-z]{2}", text) for text in texts)
            # Word under word, since rich would fold figures before it folds this.
            heading = Text("\n").join(head.content.split(" ")) if place and whole else head.content
            table.add_column(heading, justify=head.justify, no_wrap=whole, overflow="fold")
        for row in rows:
            table.add_row(*(each.content for each in row))
        yield table


class ConsoleMarkdown(Markdown):
    """Markdown for `rich.console.Console.print`.

    A table keeps names and figures on one line; where it is too wide, headings and words fold. An
    address that something links to is printed, not hidden.
    """

    elements: ClassVar = {**Markdown.elements, "table_open": _Table}

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)
