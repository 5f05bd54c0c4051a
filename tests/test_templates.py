"""Templates: what is escaped, and that nothing may be missing."""

from pathlib import Path

import jinja2
import pytest

import kdbench
from kdbench.base import templates
from kdbench.base.templates import document, paragraphs, render


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house with one room of templates."""
    folder = tmp_path / "room" / "templates"
    folder.mkdir(parents=True)
    monkeypatch.setattr(templates, "ROOMS", tmp_path)
    return folder


def test_html_is_escaped_and_markdown_is_not(rooms: Path) -> None:
    for name in ("page.html", "page.md"):
        (rooms / name).write_text("{{ text }}")
    assert render("room/page.html", text="<b>") == "&lt;b&gt;"
    assert render("room/page.md", text="<b>") == "<b>"


def test_a_value_that_is_missing_is_an_error(rooms: Path) -> None:
    (rooms / "missing.md").write_text("{{ nothing }}")
    with pytest.raises(jinja2.UndefinedError, match="nothing"):
        render("room/missing.md")


def test_paragraphs_are_unwrapped_and_empty_ones_left_out(rooms: Path) -> None:
    text = "one\n two {{ n | count('seed') }}\n\n{% if no %}never{% endif %}\n\nthree\n"
    (rooms / "notes.md").write_text(text)
    assert paragraphs("room/notes.md", n=2, no=False) == ["one two 2 seeds", "three"]


def test_a_document_has_each_paragraph_and_item_on_one_line(rooms: Path) -> None:
    text = "# A\n one\n two\n* x\n  y\n* z\n\n\n| a |\n| b |\nafter\nit\n\n"
    (rooms / "document.md").write_text(text)
    shown = "# A\none two\n* x y\n* z\n\n| a |\n| b |\nafter it\n"
    assert document("room/document.md") == shown


def test_a_table_of_items_has_a_row_for_each(rooms: Path) -> None:
    macros = Path(kdbench.__file__).parent / "report" / "templates" / "table.md"
    (rooms / "table.md").write_text(macros.read_text())
    (rooms / "items.md").write_text(
        '{% from "room/table.md" import table_of %}\n'
        '{% call(item) table_of(["name", "a|b"], items) %}\n'
        "{{ item }}\n{{ item * 2 }}\n{% endcall %}\n"
    )
    shown = document("room/items.md", items=["x", "y"])
    assert shown == "| name | a\\|b |\n| --- | ---: |\n| x | xx |\n| y | yy |\n"


def test_a_cell_cannot_leave_its_table(rooms: Path) -> None:
    (rooms / "row.md").write_text("| {{ text | cell }} |")
    assert render("room/row.md", text="a|b\nc") == "| a\\|b c |"
