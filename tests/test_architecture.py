"""docs/architecture.md names what exists: every path, every `module.function`, every room."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`(kdbench/[\w/]*(?:\.py)?)`", PAGE)))
TABLE = PAGE[PAGE.index("## Where a number is made") : PAGE.index("## The tree")]
ROWS = [line for line in TABLE.splitlines() if "kdbench/" in line]


def modules_of(row: str) -> dict[str, str]:
    """The importable modules of the files that a row names, by their last name."""
    files = re.findall(r"`(kdbench/[\w/]+)\.py`", row)
    names = [file.removesuffix("/__init__").replace("/", ".") for file in files]
    return {name.rpartition(".")[2]: name for name in names}


def test_every_path_exists() -> None:
    assert len(PATHS) > 30
    assert [path for path in PATHS if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_function_exists_in_a_file_of_its_row(row: str) -> None:
    modules = modules_of(row)
    functions = re.findall(r"`([a-z_0-9]+)\.(\w+)(?:\.(\w+))?`", row.split("|")[3])
    assert functions
    for module, *names in functions:
        assert module in modules, f"`{module}.{names[0]}` names no file of its row"
        found = importlib.import_module(modules[module])
        for name in filter(None, names):
            assert hasattr(found, name), f"{modules[module]} has no {'.'.join(names)}"
            found = getattr(found, name)


def test_the_rooms_are_those_of_the_import_rule() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    shown = re.findall(r"^\| `kdbench/(\w+)(?:/|\.py)` \|", PAGE, flags=re.MULTILINE)
    assert shown == layers
