"""Suites in YAML alone: own records, own checkpoints, the hub's loader, identity."""

import json
import pickle
import re
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from kdbench.base.errors import UserError
from kdbench.base.store import write_jsonl
from kdbench.config.identity import differences, digest
from kdbench.config.load import installed_suites, load_suite
from kdbench.config.schema import Suite
from kdbench.data.files import locate
from kdbench.data.record import Record
from kdbench.data.records import read_split
from kdbench.data.tokenizer import train_tokenizer
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.plan import Request, make_plan
from kdbench.pipeline.run import run
from tests.conftest import DATA_DIR, MICRO_SUITE, Cli

GUIDE = Path(__file__).parents[1] / "docs" / "add-a-suite.md"
SMALLER = (
    *("data.max_prompt=64", "data.max_length=96", "recipe.steps=6", "recipe.batch=8"),
    *("recipe.lr=0.001", "recipe.warmup=0", "decoding.max_new_tokens=8", "decoding.seeds=[10]"),
    *("student.fit.steps=4", "student.fit.batch=8", "seeds=1"),
)
"""Makes the guide's suite one of seconds."""
OWN_SUITE = """\
name: own
data:
  train: {path: train.jsonl}
  dev: {path: dev.jsonl}
  evaluation:
    mine: {path: test.jsonl}
  max_prompt: 64
  max_length: 96
teacher: {path: teacher}
student: {path: student, fit: {steps: 4, batch: 8, lr: 0.001}}
recipe: {steps: 6, batch: 8, lr: 0.001}
decoding: {max_new_tokens: 8}
seeds: 1
"""


def write_records(folder: Path, count: int, *names: str) -> list[Record]:
    texts = [(f"Count to {i}.", " ".join(map(str, range(i)))) for i in range(1, count + 1)]
    for name in names or ("train", "dev", "test"):
        rows = [{"instruction": asked, "output": answer} for asked, answer in texts]
        write_jsonl(folder / f"{name}.jsonl", rows)
    return [Record(asked, "", (answer,)) for asked, answer in texts]


def load_own(folder: Path) -> Suite:
    (folder / "own.yaml").write_text(OWN_SUITE)
    return load_suite(str(folder / "own.yaml"))


def save_gpt2(folder: Path, records: list[Record], layers: int, seed: int) -> None:
    train_tokenizer(records, folder, vocabulary=300, frame_tokens=True)
    torch.manual_seed(seed)
    # Padded to 320 ids, as real heads often are: the last 20 do not exist in the tokenizer.
    sizes = {"vocab_size": 320, "n_positions": 128, "n_embd": 64, "n_layer": layers, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)


@pytest.mark.slow
def test_own_records_and_checkpoints_need_the_twenty_lines_that_the_guide_shows(
    cli: Cli, tmp_path: Path
) -> None:
    block = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 20
    (tmp_path / "mine.yaml").write_text(block[1])
    records = write_records(tmp_path / "my-data", 20)
    save_gpt2(tmp_path / "checkpoints/teacher", records, layers=2, seed=0)
    save_gpt2(tmp_path / "checkpoints/student", records, layers=1, seed=1)
    suite = ("--suite", "mine.yaml", "--data-dir", "my-data", "--backend", "transformers")
    for field in SMALLER:
        suite += ("--set", field)
    assert "3 of 3 to do" in cli("plan", *suite, "--objectives", "reverse-kl").stdout
    cli("run", *suite, "--objectives", "reverse-kl")
    board = pd.read_csv(tmp_path / "results/mine/leaderboard.csv")
    assert set(board.variant) == {"teacher", "initial student", "reverse-kl"}
    log = (tmp_path / "results/mine/trials/reverse-kl/seed-0/train.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert losses[-1] < losses[0]


@pytest.mark.skipif(not DATA_DIR.is_dir(), reason="KDBENCH_DATA_DIR names no folder with Dolly")
def test_real_records_are_read_and_fit(tmp_path: Path) -> None:
    suite = load_suite("dolly-tiny")
    folder = locate(suite, DATA_DIR)
    assert len(read_split(folder, suite.data.train)) == 11_435
    assert len(read_split(folder, suite.data.evaluation["vicuna"])) == 80
    assert len(read_split(folder, suite.data.evaluation["dolly"])) == 100


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.steps=true", "recipe.steps: Input should be a valid integer, not true"),
        ("recipe.steps=1:30", 'recipe.steps: Input should be a valid integer, not "1:30"'),
        ("recipe.steps=4e2", "recipe.steps: Input should be a valid integer, not 400.0"),
        ("recipe.lr=true", "recipe.lr: Input should be a valid number, not true"),
        ("recipe.lr='1'", "recipe.lr: Input should be a valid number"),
        ("recipe.lr=.inf", "recipe.lr: Input should be a finite number"),
        ("recipe.min_lr=1", "min_lr: 1.0 is above lr, 0.004"),
        ("teacher.fit.warmup=2001", "warmup: 2001 is more than all 2000 steps"),
        ("decoding.greedy=yes", 'decoding.greedy: Input should be a valid boolean, not "yes"'),
        ("decoding.seeds=[-1]", "decoding.seeds.0: Input should be greater than or equal to 0"),
        ("decoding.seeds=[9223372036854775808]", "decoding.seeds.0: Input should be less than"),
        ("decoding.seeds=[]", "seeds: at least one"),
        ("seeds=100000000", "seeds: Input should be less than or equal to 1000"),
    ],
)
def test_a_value_of_the_wrong_kind_or_out_of_range_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^--set {re.escape(setting)}: .*{re.escape(message)}"):
        load_suite("instruct", [setting])


def test_a_number_with_a_leading_zero_is_decimal() -> None:
    assert load_suite("instruct", ["recipe.steps=0100"]).recipe.steps == 100


@pytest.mark.parametrize("name", sorted(installed_suites()))
def test_every_installed_suite_is_valid(name: str) -> None:
    assert load_suite(name).name == name


@pytest.mark.parametrize(
    ("setting", "moves"),
    [
        ("recipe.lr=0.1", False),
        ("decoding.temperature=0.5", False),
        ("teacher.fit.lr=0.1", True),
        ("data.train.limit=3", True),
    ],
)
def test_only_what_made_a_teacher_is_in_its_key(tmp_path: Path, setting: str, moves: bool) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE)
    suites = [load_suite(str(tmp_path / "micro.yaml"), settings) for settings in ([], [setting])]
    keys = {Artifacts(suite, locate(suite, None)).model("teacher") for suite in suites}
    assert (len(keys) == 2) == moves


def test_an_edited_record_changes_every_key(tmp_path: Path) -> None:
    write_records(tmp_path, 5)
    suite = load_own(tmp_path)
    before = Artifacts(suite, tmp_path).data_key
    write_records(tmp_path, 6, "dev")
    assert Artifacts(suite, tmp_path).data_key != before


@pytest.mark.parametrize("content", ["{broken", None])
def test_records_that_change_while_a_run_is_on_are_not_read(
    tmp_path: Path, content: str | None
) -> None:
    write_records(tmp_path, 5)
    artifacts = Artifacts(load_own(tmp_path), tmp_path)
    assert artifacts.data_key
    worker = pickle.loads(pickle.dumps(artifacts))  # where the references are read
    write_records(tmp_path, 6, "train")  # of no account for what is read here
    assert len(worker.references()["mine"]) == 5
    write_records(tmp_path, 6, "test")
    with pytest.raises(UserError, match="have changed since the command began"):
        worker.references()
    (tmp_path / "test.jsonl").unlink()
    if content:
        (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(UserError, match="have changed since the command began"):
        worker.references()


def test_a_run_says_once_which_records_rouge_cannot_score(
    micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("teacher", "train", "dev", "dolly", "vicuna"):
        word = "да" if name == "dolly" else "yes"
        write_jsonl(tmp_path / f"data/{name}.jsonl", [{"instruction": "a", "output": word}])
    monkeypatch.setattr("kdbench.pipeline.run.execute", lambda *_, **__: [])
    request = Request(
        str(micro), "sft", backend="transformers", data_dir=tmp_path / "data", out=tmp_path / "out"
    )
    said: list[tuple[str, bool]] = []
    display = Mock(say=lambda text, warning=False: said.append((text, warning)))
    run(make_plan(request), display)
    ((text, warning),) = said
    assert text.startswith("dolly: 1 of 1 records have only references without a-z and 0-9")
    assert warning


def test_digest_is_pinned() -> None:
    # A change here re-keys every cache: it needs a new SPEC_VERSION and a line in the changelog.
    same = [digest({"b": 1, "a": [1.5, "ü"]}), digest({"a": [1.5, "ü"], "b": 1})]
    assert same[0] == same[1]
    assert digest("kdbench", {"a": 1}) == "b32e62f544a7bdf4"


def test_differences_name_the_leaf() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    new = {"a": {"b": 2, "c": [1, 2]}, "e": 3}
    assert differences(old, new) == ["a.b: 1 -> 2", "e: null -> 3"]


def test_a_suite_that_includes_itself_by_another_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text("include: folder/own.yaml\n")
    with pytest.raises(UserError, match=r"own\.yaml:1: include: .*includes itself"):
        load_suite(str(path))
