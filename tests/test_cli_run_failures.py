"""`kdbench run` with objectives that diverge, average or raise."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Cli

RUN = ("run", "--suite", "micro.yaml", "--backend", "transformers", "--jobs", "2")


pytestmark = pytest.mark.slow


def averages(run: Path, metric: str = "rouge_l") -> pd.DataFrame:
    """The rows of the leaderboard that hold a metric's average over sets, by variant."""
    board = pd.read_csv(run / "leaderboard.csv")
    return board[(board.metric == metric) & (board["set"] == "average")].set_index("variant")


DIVERGING_PLUGIN = """
from kdbench.api import divergence, kl

@divergence("diverging", source="a test")
def diverging(teacher_logp, student_logp):
    value = kl(teacher_logp, student_logp)
    return value / (value > 1e9)
"""


def test_diverged_trial_is_recorded_and_the_others_go_on(
    micro: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "diverging.py").write_text(DIVERGING_PLUGIN)
    arguments = ("--objectives", "diverging,sft", "--plugin", "diverging.py", "--seeds", "1")
    cli(*RUN, *arguments)
    rows = json.loads(cli("status", "micro", "--json").stdout)
    states = {row["variant"]: row["state"] for row in rows}
    others = dict.fromkeys(("sft", "initial student", "teacher"), "done")
    assert states == {"diverging": "diverged", **others}
    board = pd.read_csv(tmp_path / "results/micro/leaderboard.csv")
    assert board[board.variant == "diverging"].n_diverged.eq(1).all()


MISBEHAVING_PLUGIN = """
from kdbench.api import divergence, kl

@divergence("averaging", source="a test")
def averaging(teacher_logp, student_logp):
    return kl(teacher_logp, student_logp).mean()

@divergence("raising", source="a test")
def raising(teacher_logp, student_logp):
    raise ValueError("boom")

class OddError(Exception):
    def __init__(self, one, other):
        super().__init__(one)
        self.other = other

@divergence("odd", source="a test")
def odd(teacher_logp, student_logp):
    raise OddError("cannot be sent", lambda: None)

@divergence("leaving", source="a test")
def leaving(teacher_logp, student_logp):
    raise SystemExit(3)
"""


def test_every_objective_that_misbehaves_is_listed_and_the_others_are_reported(
    micro: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(MISBEHAVING_PLUGIN)
    bad = ("averaging", "raising", "odd", "leaving")
    arguments = ("--objectives", ",".join([*bad, "sft"]), "--plugin", "bad.py", "--seeds", "1")
    result = cli(*RUN, *arguments, check=1)
    assert {f"Failed: train {name} seed 0" in result.stderr for name in bad} == {True}
    for text in ("one value per token", "bad.py:4", "ValueError: boom", "OddError: cannot be sent"):
        assert text in result.stderr
    assert "4 tasks failed" in result.stderr
    assert "Traceback" not in result.stderr
    rows = json.loads(cli("status", "micro", "--json").stdout)
    states = {row["variant"]: row["state"] for row in rows}
    others = dict.fromkeys(("sft", "initial student", "teacher"), "done")
    assert states == {**dict.fromkeys(bad, "failed"), **others}
    assert set(averages(tmp_path / "results/micro").index) == set(others)
