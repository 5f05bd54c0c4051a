"""Text of others where it is shown: on a terminal, in Markdown, in a spreadsheet."""

import csv
import io

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from kdbench.base.plain import csv_of, printable
from kdbench.base.templates import cell, code, markdown
from tests.conftest import Cli

HARMFUL = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202edlrow\u2028\x00"


def test_control_characters_become_escapes() -> None:
    assert printable(HARMFUL).isprintable()
    assert printable("\x1b[1m\u202e") == r"\x1b[1m\u202e"
    assert printable("Zürich → 東京\u3000\tnext\nline") == "Zürich → 東京\u3000\tnext\nline"


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--suite", f"{HARMFUL[:4]}x"],
        ["plan", "--objectives", "\x1b[31mred"],
        ["plan", "--set", "recipe.\x1b[31m=1"],
        ["plan", "--jobs", "\x1b[31m"],
        ["plan", "--\x1b[31m"],
        ["\x1b[31m"],
        ["status", "\x1b[31m\u202e"],
        ["report", "\x1b[31m"],
        ["data", "check", "\x1b[31m.yaml"],
        ["publish", "\x9b31m"],
    ],
)
def test_no_command_prints_them(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments, check=2)
    said = done.stdout + done.stderr
    assert said
    assert all(part.isprintable() for part in said.split("\n"))


@pytest.mark.parametrize("shown", [code, markdown])
def test_markdown_shows_names_as_they_are(shown: object) -> None:
    name = "a`<img src=x onerror=alert(1)>`<b>[x](javascript:y)``\x1b"
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    text = f"| a | b |\n| --- | --- |\n| {cell(shown(name))} | c |\n"  # type: ignore[operator]
    page = parser.render(text)
    for tag in ("<img", "<b>", "<a ", "\x1b"):
        assert tag not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<td>c</td>" in page


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "-5", "+1e-3", "plain", None]
    table = pd.DataFrame({"text": texts, "number": [-1.5] * len(texts)})
    rows = list(csv.reader(io.StringIO(csv_of(table))))[1:]
    assert [row[0] for row in rows] == [
        *("'=1+1", "'+cmd|' /C calc'!A0", "'-x", "'@SUM(A1)", "'\t=1"),
        *("-5", "+1e-3", "plain", ""),
    ]
    assert {row[1] for row in rows} == {"-1.5"}
    assert table["text"][0] == "=1+1"
