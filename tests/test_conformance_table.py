"""docs/numerics.md is what the registry says today; measured digits differ between machines."""

from pathlib import Path

from kdbench.authoring.table import zeros_table
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import load_objectives, variant_of

PAGE = Path(__file__).parents[1] / "docs/numerics.md"
HINT = "run: python -m kdbench.authoring.table > docs/numerics.md"


def test_the_page_says_where_each_objective_is_infinite() -> None:
    assert "\n".join(zeros_table()) in PAGE.read_text(encoding="utf-8"), HINT


def test_every_objective_has_measured_errors() -> None:
    load_objectives()
    errors = PAGE.read_text(encoding="utf-8").partition("## How near")[2]
    assert [name for name in OBJECTIVES if f"| `{name}` |" not in errors] == [], HINT


def test_the_page_agrees_with_what_is_declared() -> None:
    """The table is measured; the declaration is the author's."""
    load_objectives()
    rows = {line.split("`")[1]: line.split("|")[2:4] for line in zeros_table()[2:]}
    for name in OBJECTIVES:
        declared = variant_of(OBJECTIVES[name], {}).infinite_where()
        if declared is not None:
            written = [word for word in ("teacher", "student") if word in declared]
            found = [
                word
                for word, cell in zip(("teacher", "student"), rows[name], strict=True)
                if cell.strip() == "+inf"
            ]
            assert found == written, name
