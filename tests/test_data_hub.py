"""A suite's records from the hub, seen from the command line, against a server on this machine."""

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import KDBENCH, Cli
from tests.hub_server import Hub, serve

RAW = "".join(
    json.dumps({"instruction": f"Count to {i}.", "input": "", "output": f"{i} é"}) + "\n"
    for i in range(40)
).encode()
TEST = b'{"instruction": "Say a or b.", "output": ["a", "b"]}\n'
SUITE = """\
name: far
data:
  train: {{path: d/train.jsonl, hub: toy/d, hub_rows: "4:", license: CC0,
    {more}}}
  dev: {{path: d/dev.jsonl, hub: toy/d, hub_file: raw.jsonl, hub_rows: ":4", license: CC0}}
  evaluation:
    test: {{path: t/valid.jsonl, hub: toy/t, license: MIT, redistribute: false}}
teacher: {{path: x}}
student: {{path: x}}
recipe: {{steps: 1, batch: 1, lr: 1}}
"""
TRAIN = b"".join(RAW.splitlines(keepends=True)[4:])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server with two data sets, and this test's own caches of both libraries."""
    with serve({"toy/d/raw.jsonl": RAW, "toy/t/valid.jsonl": TEST}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
        yield served


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_suite(folder: Path, more: str = "") -> None:
    more = more if "hub_file" in more else f"hub_file: raw.jsonl, {more}"
    (folder / "far.yaml").write_text(SUITE.format(more=more))


def pulled(folder: Path) -> list[bytes]:
    """The train files that stand in the cache."""
    return [path.read_bytes() for path in (folder / "cache").glob("hub/*/d/train.jsonl")]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def write_files(folder: Path, *contents: bytes) -> None:
    for name, content in zip(("d/train", "d/dev", "t/valid"), contents, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_bytes(content)


@pytest.fixture
def cli(cli_process: Cli) -> Cli:
    """In a process of its own: the hub's address is read when its library is imported."""
    return cli_process


def test_pull_fetches_every_file_and_check_reads_it(cli: Cli, tmp_path: Path, hub: Hub) -> None:
    # The digest of a mirror's file says nothing of the hub's.
    write_suite(tmp_path, f"hub_sha256: {sha256(RAW)}, sha256: {'b' * 64}, records: 36")
    shown = cli("data", "pull", "far.yaml").stdout
    assert "CC0" in shown
    assert "MIT, not to be redistributed" in shown
    assert pulled(tmp_path) == [TRAIN]
    asked = len(hub.asked)
    told = cli("data", "check", "far.yaml").stdout
    assert re.findall(r"(\d+) rows, digest (\w+)", told) == [
        ("36", "fits"),
        ("4", "not"),
        ("1", "not"),
    ]
    assert len(hub.asked) == asked


@pytest.mark.parametrize("fault", ["breaks", "lies"])
def test_a_broken_or_wrong_download_is_made_again(
    cli: Cli, tmp_path: Path, hub: Hub, fault: str
) -> None:
    write_suite(tmp_path, f"hub_sha256: {sha256(RAW)}")
    setattr(hub, fault, 1)
    cli("data", "pull", "far.yaml")
    assert [method for method, path, _ in hub.asked if "raw" in path].count("GET") == 2
    assert pulled(tmp_path) == [TRAIN]


def test_a_killed_download_leaves_nothing_and_the_next_one_succeeds(
    cli: Cli, tmp_path: Path, hub: Hub
) -> None:
    write_suite(tmp_path)
    hub.stalls = True
    with subprocess.Popen([*KDBENCH, "data", "pull", "far.yaml"], cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while "GET" not in {method for method, _, _ in hub.asked}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    assert pulled(tmp_path) == []
    hub.stalls = False
    cli("data", "pull", "far.yaml")
    assert pulled(tmp_path) == [TRAIN]


def test_another_digest_is_refused_and_nothing_is_kept(cli: Cli, tmp_path: Path, hub: Hub) -> None:
    write_suite(tmp_path, f"hub_sha256: {'a' * 64}")
    said = cli("data", "pull", "far.yaml", check=2).stderr
    for part in ("toy/d/raw.jsonl, downloaded twice", "a" * 64, sha256(RAW)):
        assert part in said
    assert pulled(tmp_path) == []
    way_on = re.search(r"--set (\S+=\w+)", said)
    assert way_on is not None
    cli("data", "pull", "far.yaml", "--set", way_on[1])
    assert pulled(tmp_path) == [TRAIN]


def test_a_slice_of_another_length_and_a_missing_file_are_refused(
    cli: Cli, tmp_path: Path, hub: Hub
) -> None:
    write_suite(tmp_path, "records: 35")
    said = cli("data", "pull", "far.yaml", check=2).stderr
    assert "36 records, where the suite says 35 (data.train.records)" in said
    del hub.files["toy/t/valid.jsonl"]
    said = cli("data", "pull", "far.yaml", "--set", "data.train.records=", check=2).stderr
    assert "test: toy/t/valid.jsonl could not be loaded from the hub" in said
    assert pulled(tmp_path) == []


def test_parquet_is_read_from_the_hub(cli: Cli, tmp_path: Path, hub: Hub) -> None:
    rows = [{"output": ["a", "é"], "instruction": f"Say {i}.", "when": i} for i in range(9)]
    hub.files["toy/d/all.parquet"] = parquet(rows)
    write_suite(tmp_path, "hub_file: all.parquet")
    cli("data", "pull", "far.yaml")
    lines = pulled(tmp_path)[0].splitlines()
    kept = [{"instruction": row["instruction"], "output": row["output"]} for row in rows[4:]]
    assert [json.loads(line) for line in lines] == kept


TEST_SHARD = "test-00000-of-00001"
WHOLE = """\
data:
  train: {path: d, hub: toy/whole, split: "train[2:]"}
  dev: {path: d, hub: toy/whole, split: "train[:2]"}
  evaluation:
    test: {path: d, hub: toy/whole, split: test, records: 3}
"""


def test_a_dataset_in_shards_is_taken_whole_once(cli: Cli, tmp_path: Path, hub: Hub) -> None:
    for name, rows in (("train-00000-of-00002", 4), ("train-00001-of-00002", 5), (TEST_SHARD, 3)):
        row = {"messages": [{"role": r, "content": name} for r in ("user", "assistant")]}
        hub.files[f"toy/whole/data/{name}.parquet"] = parquet([row] * rows)
    rest = SUITE.partition("teacher:")
    (tmp_path / "far.yaml").write_text(f"name: far\n{WHOLE}teacher:{rest[2].format()}")
    cli("data", "pull", "far.yaml")
    asked = len(hub.asked)
    gets = [path for method, path, _ in hub.asked if method == "GET" and "train-00000" in path]
    assert len(gets) == 1
    said = cli("data", "check", "far.yaml").stdout
    assert re.findall(r"(\d) rows", said) == ["7", "2", "3"]
    assert len(hub.asked) == asked
    folder = next((tmp_path / "cache/hub").glob("*/d"))
    assert sorted(path.name for path in folder.iterdir()) == ["dataset_dict.json", "test", "train"]
    assert [path.name for path in folder.parent.iterdir()] == ["d"]


def test_without_a_network_the_messages_name_pull_and_the_flag(
    cli: Cli, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_suite(tmp_path)
    assert "kdbench data pull far.yaml" in cli("data", "check", "far.yaml", check=2).stderr
    assert "--data-dir FOLDER" in cli("data", "pull", "far.yaml", check=2).stderr
    write_files(tmp_path / "mine", TRAIN, RAW, TEST)
    assert "36 rows" in cli("data", "check", "far.yaml", "--data-dir", "mine").stdout


def test_check_says_which_local_file_has_changed_and_how_to_go_on(cli: Cli, tmp_path: Path) -> None:
    write_suite(tmp_path, f"sha256: {sha256(TRAIN)}")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.jsonl").write_bytes(RAW)
    check = ("data", "check", "far.yaml", "--data-dir", ".")
    result = cli(*check, check=2)
    assert "40 rows, not the pinned file" in result.stdout
    assert sha256(RAW) in result.stderr
    assert "d/dev.jsonl: no such file" in result.stderr
    told = cli(*check, "--set", "data.train.sha256=", check=2).stdout
    assert "40 rows, digest not pinned" in told


def test_check_notes_what_moves_scores_and_is_allowed(cli: Cli, tmp_path: Path) -> None:
    write_suite(tmp_path)
    test = TRAIN.splitlines(keepends=True)[0].decode() + (
        '{"instruction": "y", "output": ["да", "нет"]}\n'
        '{"instruction": "z", "output": ["да", "yes"]}\n'
    )
    train = TRAIN + b'{"instruction": "x", "output": " "}\n'
    write_files(tmp_path, train, RAW, test.encode())
    said = cli("data", "check", "far.yaml", "--data-dir", ".").stdout
    assert [line for line in said.splitlines() if line.startswith("Note: ")] == [
        "Note: train: 1 of 37 records have an empty output",
        "Note: dev: 36 of 40 records have a prompt that stands in train too",
        "Note: test: 1 of 3 records have a prompt that stands in train too",
        "Note: test: 1 of 3 records have only references without a-z and 0-9 (another script): "
        "ROUGE-L is 0 for them, whatever is answered",
    ]
