"""Places and texts that cannot be used: one sentence each, and no traceback."""

import os
from pathlib import Path

import pytest

from kdbench.api import divergence, labelled
from kdbench.base.errors import UserError
from kdbench.config.schema import Split
from kdbench.data.arrow import read_rows
from kdbench.data.records import read_split

ROW = '{"instruction": "a", "output": "b"}'


@pytest.mark.parametrize(
    "text", ['[{"instruction": "a\\ud800", "output": "b"}]', ROW[:-2] + '\\udc00"}']
)
def test_half_a_surrogate_pair_is_no_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(UserError, match=r"rows.json.*surrogates not allowed"):
        read_rows(tmp_path / "rows.json", {}, "")


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(UserError, match=r"^/proc/self/mem: cannot be read: "):
        read_rows(Path("/proc/self/mem"), {}, "")


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"x\xe9.jsonl")).write_text(ROW)
    with pytest.raises(UserError, match=r"file name 'x.udce9.jsonl' is not UTF-8; rename it"):
        read_rows(tmp_path, {}, "")


def test_a_cache_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    (tmp_path / "rows.jsonl").write_text(ROW)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="cache is a file and no folder; KDBENCH_CACHE"):
        read_rows(tmp_path / "rows.jsonl", {}, "")


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("decorator", [divergence, labelled])
def test_a_parameter_that_is_not_in_the_signature_is_named(decorator: object) -> None:
    with pytest.raises(UserError, match=r"zz-lacking.*alpha"):
        decorator("zz-lacking", source="a test", alpha=1.0)(lambda t, s: t)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["deep.jsonl", "folder/train.jsonl"])
def test_records_nested_beyond_any_parser_are_refused(tmp_path: Path, name: str) -> None:
    """Arrow's parser would end the process."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"instruction": "a", "output": ' + "[" * 50_000 + "]" * 50_000 + "}\n")
    with pytest.raises(UserError, match="recursion"):
        read_split(tmp_path, Split(path=name.split("/")[0]))
