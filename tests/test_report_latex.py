r"""The LaTeX table: what it says, and that a real TeX sets it."""

import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest

from kdbench.base.templates import tex
from kdbench.report.render import cells, columns, to_latex
from kdbench.report.table import Board, build_board
from tests.synthetic_run import Variant, write_run

SPECIAL = r"""a\b{c}d$e&f#g^h_i~j%k<l>m|n"o'p`q"""
DOCUMENT = r"""\documentclass{article}
\usepackage[landscape,a2paper,margin=1cm]{geometry}
\usepackage{booktabs}
\begin{document}
\noindent %s
\end{document}
"""

needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex on the PATH (Debian: apt-get install texlive-latex-recommended)",
)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    variants = [
        Variant("amid[alpha=-3,order=p_r]", 60.0, diverged=(1,)),
        Variant("own[text=50%&#$^~{}\\<>]", 57.0, generated=40),
    ]
    return build_board(write_run(tmp_path_factory.mktemp("runs") / "toy", variants))


def test_every_figure_of_the_table_stands_in_its_cell(board: Board) -> None:
    lines = to_latex(board, "toy").splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    header, rows = cells(board, columns(board))
    assert len(body) == len(rows)
    for line, row in zip(body, rows, strict=True):
        texts = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        assert len(texts) == len(header)
        for text, cell in zip(texts[1:], row[1:], strict=True):
            assert _plain(text) == cell.text
            assert (r"\textbf" in text) == cell.bold
        assert texts[0].startswith(r"\texttt{")


def test_notes_are_comments(board: Board) -> None:
    after = to_latex(board, "toy").partition("\\end{tabular}\n")[2].splitlines()
    assert len(after) > 3
    assert all(line.startswith(r"% \item ") for line in after)


def test_a_title_of_several_lines_stays_a_comment(board: Board) -> None:
    assert to_latex(board, "a\nb").splitlines()[1].startswith(r"\begin{tabular}")


def test_an_unknown_character_becomes_its_number() -> None:
    assert tex("\u6f22\x07e") == "[U+6F22][U+0007]e"


@needs_tex
def test_table_and_notes_compile(board: Board, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(to_latex(board, "toy"), encoding="utf-8")
    text = _compile(r"\input{table}", tmp_path)
    _, rows = cells(board, columns(board))
    if text is not None:
        for row in rows:
            assert row[2].text.split(" ")[0] in text
    notes = re.sub(r"(?m)^% ", "", to_latex(board, "toy").partition("\\end{tabular}\n")[2])
    _compile(rf"\begin{{itemize}}{notes}\end{{itemize}}", tmp_path)


@needs_tex
@pytest.mark.parametrize("command", [r"%s", r"\texttt{%s}", r"\textbf{%s}"])
def test_every_character_compiles(command: str, tmp_path: Path) -> None:
    letters = "".join(map(chr, range(0x80, 0x180)))
    for text in (SPECIAL, string.printable, "±×−≤≥†…–—", letters, "漢字 \N{GRINNING FACE}"):  # noqa: RUF001
        _compile(command.replace("%s", tex(text)), tmp_path)


def _plain(text: str) -> str:
    r"""What a cell prints; figures hold no other markup than these."""
    for macro, printed in (
        (r"\textsuperscript{$\dagger$}", "†"), (r"$\pm$", "±"), (r"\%", "%"),
    ):  # fmt: skip
        text = text.replace(macro, printed)
    return re.sub(r"\\textbf\{(.*)\}", r"\1", text.strip())


def _compile(body: str, folder: Path) -> str | None:
    """Sets a document; its text, where there is something to read the PDF with."""
    (folder / "page.tex").write_text(DOCUMENT.replace("%s", body), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert result.returncode == 0, result.stdout[-2000:]
    assert "Missing character" not in result.stdout
    if shutil.which("pdftotext") is None:
        return None
    read = ["pdftotext", "-layout", "page.pdf", "-"]
    return subprocess.run(read, cwd=folder, capture_output=True, text=True, check=True).stdout
