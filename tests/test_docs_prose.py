"""How docstrings are written: they state, in the indicative, and do not ask."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kdbench", "objectives", "suites", "benchmarks", "tools", "examples")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ASKING = ("is ", "are ", "was ", "were ", "does ", "do ", "did ", "can ", "could ", "may ", "has ")


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of fields and constants included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, DOCUMENTED) or not isinstance(body, list):
            continue
        for item in body:
            value = item.value if isinstance(item, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield item.lineno, value.value


def questions(text: str) -> list[str]:
    """The sentences of a docstring that ask."""
    first = text.strip().split("\n\n")[0].replace("\n", " ")
    asked = first.lower().startswith(ASKING) or "? " in f"{first} "
    return [first] if asked else []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_asks_a_question(folder: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": asked
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if (asked := questions(text))
    }
    assert not found


def test_a_question_is_noticed() -> None:
    tree = ast.parse('"""States."""\ndef f():\n    """Is it there?"""\n')
    texts = [text for _, text in docstrings(tree)]
    assert [bool(questions(text)) for text in texts] == [False, True]
