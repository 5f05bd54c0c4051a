"""What people's files look like: every form and layout is read as the records that were written."""

import csv
import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench.base.errors import UserError
from kdbench.config.schema import Split
from kdbench.data.record import Record, Turn
from kdbench.data.records import read_split

ROWS = [
    {"id": i, "instruction": f"Count to {i}.", "input": "", "output": text}
    for i, text in enumerate(["007", "NA", "2020-01-01", "a\n\u2028b", "é,\t\"'"])
]
RECORDS = [Record(str(row["instruction"]), "", (str(row["output"]),)) for row in ROWS]


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_csv(path: Path, separator: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(ROWS)


def save_two_splits(path: Path) -> None:
    train, test = (datasets.Dataset.from_list(rows) for rows in (ROWS, ROWS[:1]))
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(path)


def write_mirror(path: Path) -> None:
    (path / "data").mkdir(parents=True)
    for part, rows in enumerate((ROWS[:2], ROWS[2:])):
        pq.write_table(pa.Table.from_pylist(rows), path / f"data/train-0000{part}-of-00002.parquet")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: path.write_text(lines(*ROWS), encoding="utf-8"),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.csv": write_csv,
    "a.tsv": lambda path: write_csv(path, "\t"),
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "saved": lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path),
    "mirror": write_mirror,
    "odd [1]*.jsonl": lambda path: path.write_text(lines(*ROWS), encoding="utf-8"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_records_and_slices(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read_split(tmp_path, Split(path=name)) == RECORDS
    assert read_split(tmp_path, Split(path=name, split="train[1:-1]")) == RECORDS[1:-1]
    assert read_split(tmp_path, Split(path=name, split="train[:40%]", limit=1)) == RECORDS[:1]


def test_a_split_of_a_folder_is_named(tmp_path: Path) -> None:
    save_two_splits(tmp_path / "both")
    assert read_split(tmp_path, Split(path="both", split="test")) == RECORDS[:1]
    for split in ("", "dev"):
        with pytest.raises(UserError, match=r"both: has .*\(train, test\); write split: NAME"):
            read_split(tmp_path, Split(path="both", split=split))
    (tmp_path / "a.jsonl").write_text(lines(*ROWS))
    with pytest.raises(UserError, match=r"a\.jsonl: has no split 'dev' \(train\)"):
        read_split(tmp_path, Split(path="a.jsonl", split="dev[:1]"))


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SINGLE = Record("q", "", ("a",))


def sharegpt(*turns: str) -> list[dict[str, str]]:
    return [dict(zip(("from", "value"), turn.split(), strict=True)) for turn in turns]


ASKED = (Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a"), Turn("user", "r"))
SEVERAL = Record("system: s\n\nuser: q\n\nassistant: a\n\nuser: r", "", ("b",), ASKED)


@pytest.mark.parametrize(
    ("row", "columns", "record"),
    [
        ({"instruction": "q", "output": ["a", "b"]}, {}, Record("q", "", ("a", "b"))),
        ({"prompt": "q", "completion": "a"}, {}, SINGLE),
        ({"prompt": "q", "response": "a"}, {}, SINGLE),
        ({"prompt": "x", "messages": [USER, ANSWER, USER]}, {}, SINGLE),
        ({"conversations": sharegpt("human q", "gpt a")}, {}, SINGLE),
        ({"conversations": sharegpt("system s", "human q", "gpt a", "user r", "chatgpt b")}, {},
         SEVERAL),
        ({"question": "q", "context": "c", "answer": "a", "output": 3},
         {"instruction": "question", "input": "context", "output": "answer"},
         Record("q", "c", ("a",))),
        ({"chat": [USER, ANSWER], "output": "x", "instruction": "y"}, {"messages": "chat"}, SINGLE),
    ],
)  # fmt: skip
def test_every_layout_is_known_or_mapped(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str], record: Record
) -> None:
    assert Record.of(row, "here", columns) == record
    (tmp_path / "a.jsonl").write_text(lines(row, row))
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    for path in ("a.jsonl", "a.parquet"):
        assert read_split(tmp_path, Split(path=path, columns=columns)) == [record, record]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["2020-01-01", "12:30:00", "1", "null", "true", "{}", "\x00", "\r\n"]
)
ROW = st.fixed_dictionaries(
    {"instruction": TEXT, "output": TEXT | st.lists(TEXT, min_size=1, max_size=3)},
    optional={"input": TEXT | st.none(), "id": st.integers(-5, 5) | TEXT | st.lists(st.floats(0))},
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=5), st.sampled_from(["a.jsonl", "a.json"]))
def test_what_arrow_makes_of_json_is_what_python_reads(
    tmp_path: Path, rows: list[dict[str, Any]], name: str
) -> None:
    text = lines(*rows) if name == "a.jsonl" else json.dumps(rows)
    (tmp_path / name).write_bytes(text.encode())
    for row, record in zip(rows, read_split(tmp_path, Split(path=name)), strict=True):
        outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
        assert record == Record(row["instruction"], row.get("input") or "", tuple(outputs))


GOOD = {"instruction": "x", "output": "y"}
HALF = '{"instruction": "\\ud800", "output": "x"}'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", json.dumps([GOOD, {"instruction": "x"}]), ", row 2: .*'output' is missing"),
        ("a.json", "[1", ": not a JSON list"),
        ("a.csv", "instruction,output\na,b\nc\n", ", row 2: 1 fields, and the header names 2"),
        ("a.csv", "question,answer\na,b\n", "row 1: .*'instruction' .* has question, answer: `co"),
        ("a.csv", "instruction,output\n", ": an empty set"),
        ("a.parquet", "x", ": no records that can be read: "),
        ("a.jsonl", "\n", ": an empty set"),
        ("a.jsonl", f"{lines(GOOD)}\n{{broken", ":3: not a JSON object"),
        ("a.jsonl", lines(GOOD) + HALF, ":2: not a JSON object"),
        ("a.jsonl", lines(GOOD, [1]), ":2: not a JSON object but list"),
        ("a.jsonl", lines(GOOD, {"output": "x"}), ":2: the field 'instruction' is missing"),
        ("a.jsonl", lines({**GOOD, "instruction": 3}), "'instruction' has to be text, not int"),
        ("a.jsonl", lines({**GOOD, "output": []}), "'output' is an empty list"),
        ("a.jsonl", lines({**GOOD, "output": ["y", None]}), "'output' has to be text, not NoneT"),
        ("a.jsonl", lines({"messages": [USER]}), ":1: 'messages' has no assistant turn"),
        ("a.jsonl", lines({"messages": [USER, {"role": "assistant"}]}), "turn 2: 'content' has to"),
        ("a.jsonl", lines({"conversations": [{"from": "ape", "value": "a"}]}), "turn 1: 'from' is"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(name) + ".*" + message):
        read_split(tmp_path, Split(path=name))


def test_a_conversation_in_the_alpaca_frame_is_refused_with_its_place(tmp_path: Path) -> None:
    talk = {"messages": [USER, ANSWER, USER, ANSWER]}
    (tmp_path / "a.jsonl").write_text(lines(GOOD, GOOD) + "\n" + lines(talk))
    split = Split(path="a.jsonl", split="train[1:]")
    assert len(read_split(tmp_path, split, "chat")) == 2
    with pytest.raises(UserError, match=r"a\.jsonl:4: .* 3 turns .*--set data\.template=chat"):
        read_split(tmp_path, split, "alpaca")
    assert len(read_split(tmp_path, Split(path="a.jsonl", max_prompt_chars=2), "alpaca")) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"split": "train[5]"},
        {"columns": {"answer": "x"}},
        {"columns": {"messages": "x", "input": "y"}},
        {"path": "d", "hub": "a/b", "hub_rows": "1:"},
        {"hub": "a/b", "hub_config": "main"},
        {"path": "a.parquet", "hub": "a/b", "hub_rows": "1:"},
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Split.model_validate({"path": "a.jsonl", **fields})


def test_the_cache_follows_the_bytes_and_not_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.jsonl"
    path.write_text(lines(GOOD))
    before = path.stat()
    assert read_split(tmp_path, Split(path="a.jsonl"))[0].outputs == ("y",)
    path.write_text(lines({**GOOD, "output": "z"}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_split(tmp_path, Split(path="a.jsonl"))[0].outputs == ("z",)
    os.utime(path)
    read_split(tmp_path, Split(path="a.jsonl"))
    assert len(list((tmp_path / "cache/records").glob("*/rows"))) == 2


def _read(folder: Path) -> int:
    return len(read_split(folder, Split(path="a.jsonl")))


def test_two_processes_may_read_a_new_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text(lines(*ROWS * 500))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_read, [tmp_path] * 3) == [2500] * 3
    assert sorted(path.suffix for path in (tmp_path / "cache/records").iterdir()) == ["", ".lock"]


def test_reading_is_quiet_asks_nobody_and_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(*ROWS))
    code = (
        "import socket, sys\nfrom pathlib import Path\n"
        "from kdbench.config.schema import Split\nfrom kdbench.data.records import read_split\n"
        "assert 'datasets' not in sys.modules\n"
        "def refuse(*_, **__): raise SystemExit('asked')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "import datasets\n"
        "def state(): return (datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity(),"
        " datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)\n"
        "before = state()\n"
        "read_split(Path('.'), Split(path='a.jsonl'))\nassert state() == before\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "KDBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
