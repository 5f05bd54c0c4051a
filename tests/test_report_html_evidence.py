"""The evidence on a run's page, without a script: what the run's own files say, as tables."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.report.markdown import from_markdown
from kdbench.report.page import to_html
from kdbench.report.table import build_board
from kdbench.runs.folder import Run
from tests.page_run import HOSTILE
from tests.synthetic_run import Variant, write_run

ALLOWED = {"p", "h2", "h3", "h4", "ul", "ol", "li", "code", "pre", "em", "strong", "br", "hr"}
ALLOWED |= {"blockquote", "table", "thead", "tbody", "tr", "th", "td", "div"}


class Tables(HTMLParser):
    """The cells of every table, by the heading or label that it stands under; and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.tables[-1][-1][-1] += data

    def headed(self, *names: str) -> list[list[str]]:
        """The rows of the only table whose head begins with these names."""
        (found,) = (rows for rows in self.tables if rows and tuple(rows[0][: len(names)]) == names)
        return found[1:]


@pytest.fixture
def page(page_run: Run) -> Tables:
    return Tables((page_run.path / "leaderboard.html").read_text(encoding="utf-8"))


def test_ranks_are_shares_of_all_resamplings_and_agree_with_the_table(
    page_run: Run, page: Tables
) -> None:
    rows = page.headed("rank", "1", "2", "3")
    ranks = pd.read_csv(page_run.path / "ranks.csv")
    best = (
        ranks[(ranks["set"] == "average") & (ranks.metric == "rouge_l")]
        .set_index("variant")
        .best_share
    )
    for name, *cells in rows:
        shares = [float(text or 0) for text in cells]
        assert sum(shares) == pytest.approx(100, abs=1.5)
        assert shares[0] == pytest.approx(100 * best[name], abs=0.5)


def test_variance_components_are_on_the_page(page_run: Run, page: Tables) -> None:
    variance = pd.read_csv(page_run.path / "variance.csv")
    sampled = variance[(variance["set"] == "average") & (variance.metric == "rouge_l")]
    own = sampled[sampled.scope == "row"]
    shown = {row[0]: float(row[1]) for row in page.headed("source", "in a row")}
    assert list(shown) == list(own.component)
    assert list(shown.values()) == pytest.approx(list(own.contribution), abs=5.1e-5)


def test_costs_are_on_the_page(page_run: Run, page: Tables) -> None:
    cost = pd.read_csv(page_run.path / "cost.csv")
    rows = page.headed("variant", "n seeds", "train seconds")
    assert [row[0] for row in rows] == list(cost.variant)
    assert [float(row[2]) for row in rows] == pytest.approx(list(cost.train_seconds), rel=1e-3)


def test_every_table_of_the_evidence_and_stability_files_is_on_the_page(
    page_run: Run, page: Tables
) -> None:
    shown = [tuple(map(tuple, rows)) for rows in page.tables]
    for name in ("evidence.md", "stability.md"):
        text = (page_run.path / name).read_text(encoding="utf-8")
        blocks = re.findall(r"(?m)(?:^\|.*\n)+", text)
        assert blocks
        for block in blocks:
            lines = [line.strip("| \n").split(" | ") for line in block.splitlines()]
            cells = [[cell.strip("` ") for cell in line] for line in lines]
            first = tuple(cells[2])
            assert any(first in rows for rows in shown), first


def test_one_variant_has_no_order_and_the_page_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "toy", [Variant("sft", 54.0)])
    text = to_html(build_board(run), run)
    assert "It takes two variants with a training seed in common." in text


def test_markdown_becomes_headings_tables_and_lists() -> None:
    html = from_markdown("# Title\n\n## Two `a`\n\n* x\n\n| k | v |\n|---|---:|\n| `a` | 1 |\n", 1)
    assert "Title" not in html
    assert "<h3>Two <code>a</code></h3>" in html
    assert "<li>x</li>" in html
    assert '<div class="scroll" role="region" aria-label="Two a" tabindex="0">' in html
    assert '<th scope="row"><code>a</code></th>\n<td>1</td>' in html
    assert "style" not in html


@pytest.mark.parametrize("text", [*HOSTILE, "[x](javascript:alert(1))", "![x](http://a/b.png)"])
@pytest.mark.parametrize(
    "form", ["{}", "`{}`", "| {} | b |\n|---|---|\n| {} | `{}` |", "## {}", "* {}"]
)
def test_markdown_of_the_run_can_bring_no_markup_of_its_own(form: str, text: str) -> None:
    found = Tables(from_markdown("# t\n\n" + form.replace("{}", text), 1))
    assert set(found.tags) <= ALLOWED
    assert found.attributes <= {"class", "role", "aria-label", "tabindex", "scope"}


@given(st.text("<>&\"'`[]()!*_#|-:\n\\ aA1/=", max_size=60))
def test_no_text_becomes_a_tag_or_an_attribute_of_its_own(text: str) -> None:
    found = Tables(from_markdown(text, 1))
    assert set(found.tags) <= ALLOWED | {"h5", "h6"}
    assert found.attributes <= {"class", "role", "aria-label", "tabindex", "scope", "start"}
