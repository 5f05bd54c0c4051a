"""`kdbench study` for real: a tiny grid, again, reported, published; and what is refused."""

import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import Cli

STUDY = (
    "study", "teacher_weight", "--objective", "skew-kl", "--suite", "micro.yaml",
    "--backend", "transformers", "--jobs", "1", "--values", "0.1,0.5", "--against", "forward-kl",
    "--student", "wide=student.architecture.width:64",
)  # fmt: skip
NAME = "study-teacher_weight"
VARIANTS = {"skew-kl", "skew-kl[teacher_weight=0.5]", "forward-kl"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def finished(out: Path, micro: Path, cli: Cli) -> Path:
    """The finished study's folder, made by the first test that asks for it."""
    if not (out / NAME).exists():
        printed = cli(*STUDY, "--seeds", "2", "--out", str(out)).stdout
        assert "a fixed teacher_weight as good as a tuned one" in printed
    return out / NAME


@pytest.mark.slow
def test_a_study_is_ordinary_runs_and_its_answers(finished: Path) -> None:
    spec = yaml.safe_load((finished / "wide" / "spec.yaml").read_text())
    assert spec["shared"]["suite"]["student"]["architecture"]["width"] == 64
    board = pd.read_csv(finished / "wide" / "leaderboard.csv")
    assert set(board["variant"]) == {*VARIANTS, "teacher", "initial student"}
    frame = pd.read_csv(finished / "study.csv")
    assert set(frame["teacher_weight"].dropna()) == {0.1, 0.5}
    assert set(frame[frame["role"] == "comparator"]["variant"]) == {"forward-kl"}
    assert "8 trials" in (finished / "study.md").read_text()


@pytest.mark.slow
def test_the_same_command_has_nothing_to_train(finished: Path, micro: Path, cli: Cli) -> None:
    before = {path: path.stat().st_mtime for path in finished.glob("*/trials/*/*/*.parquet")}
    printed = cli(*STUDY, "--seeds", "2", "--out", str(finished.parent), "--dry-run").stdout
    assert "trials     0 of 8 to do" in printed
    again = cli(*STUDY, "--seeds", "2", "--out", str(finished.parent)).stdout
    assert "nothing to do" in again
    assert {path: path.stat().st_mtime for path in before} == before


@pytest.mark.slow
def test_report_makes_a_study_s_tables_again(finished: Path, micro: Path, cli: Cli) -> None:
    before = {path: path.read_bytes() for path in finished.glob("*.*")}
    (finished / "answers.csv").unlink()
    assert "study.md" in cli("report", NAME, "--out", str(finished.parent)).stdout
    assert {path: path.read_bytes() for path in finished.glob("*.*")} == before


@pytest.mark.slow
def test_a_published_study_holds_tables_and_no_answers_of_students(
    finished: Path, cli: Cli
) -> None:
    cli("publish", NAME, "--out", str(finished.parent))
    board = finished.parent / "boards" / NAME
    files = {str(path.relative_to(board)) for path in board.rglob("*") if path.is_file()}
    assert {"study.md", "study.csv", "answers.csv", "wide/leaderboard.md"} <= files
    assert {"wide/provenance.json", "plots/best.png", "plots/curves-wide.png"} <= files
    assert not [name for name in files if name.endswith((".jsonl", ".parquet", ".html"))]
    assert sum((board / name).stat().st_size for name in files) < 2_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "alpah"], "did you mean alpha"),
        (["study", "alpha", "--values", "-5,nan"], "outside its range"),
        (["study", "alpha", "--name", "a/b"], "a run's name is"),
        (["study", "alpha", "--student", "a=student.architecture.wide:3"], "did you mean width"),
        (["study", "alpha", "--student", "../a"], "a run's name is"),
        (["study", "alpha", "--seeds", "0"], "at least one training seed"),
        (["study", "alpha", "--suite", "nothing"], "unknown suite"),
        (["report", "nothing"], "no run 'nothing'"),
    ],
)
def test_refused_with_one_message_and_nothing_written(
    arguments: list[str], message: str, micro: Path, cli: Cli, tmp_path: Path
) -> None:
    assert message in cli(*arguments, check=2).stderr
    assert not (tmp_path / "results").exists()
    assert os.listdir(tmp_path) == ["micro.yaml"]
