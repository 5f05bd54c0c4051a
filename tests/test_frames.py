"""`kdbench.load_run`: its frames are what the run's files say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import kdbench
from kdbench.base.errors import UserError
from kdbench.report.frames import BoardFrames
from kdbench.report.table import build_board, leaderboard, stability_frame
from kdbench.runs.folder import Run
from tests.compare_runs import answer, write_described_run
from tests.synthetic_run import SETS, Variant

VARIANTS = (
    Variant("amid[alpha=-3]", 60.0, {"alpha": -3.0}),
    Variant("sft", 54.0, diverged=(1,)),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "toy"
    return write_described_run(path, VARIANTS, answers=True, secret=("vicuna",))


def test_scores_are_the_rows_of_all_trials(run: Run) -> None:
    scores = kdbench.load_run(run.path).scores
    paths = sorted(run.path.glob("trials/*/seed-*/scores.parquet"))
    assert len(scores) == sum(len(pd.read_parquet(path)) for path in paths)
    own = scores.query("variant == 'sft' and seed == 2").drop(
        columns=["variant", "seed", "init_seed"]
    )
    stored = pd.read_parquet(run.path / "trials/sft/seed-2/scores.parquet")
    pd.testing.assert_frame_equal(own.reset_index(drop=True), stored[list(own.columns)])


def test_leaderboard_and_stability_are_the_reports(run: Run) -> None:
    frames = kdbench.load_run(str(run.path))
    pd.testing.assert_frame_equal(frames.leaderboard, leaderboard(run))
    pd.testing.assert_frame_equal(frames.stability, stability_frame(build_board(run)))


def test_trials_say_how_they_ended(run: Run) -> None:
    trials = kdbench.load_run(run.path).trials.set_index(["variant", "seed"])
    assert len(trials) == 8
    assert trials.loc[("sft", 1), "status"] == "diverged"
    assert trials.loc[("sft", 1), "diverged_at"] == 30
    assert json.loads(trials.loc[("amid[alpha=-3]", 0), "params"]) == {"alpha": -3.0}


def test_logs_hold_every_step_and_nan_where_nothing_was_measured(run: Run) -> None:
    logs = kdbench.load_run(run.path).logs
    own = logs.query("variant == 'amid[alpha=-3]' and seed == 0")
    lines = (run.path / "trials/amid-alpha--3/seed-0/train.jsonl").read_text().splitlines()
    assert own["loss"].tolist() == [json.loads(line)["loss"] for line in lines]
    measured = ["forward_kl" in json.loads(line) for line in lines]
    assert own["forward_kl"].notna().tolist() == measured


def test_answers_are_as_they_were_written(run: Run) -> None:
    generations = kdbench.load_run(run.path).generations
    assert len(generations) == 8 * 2 * sum(SETS.values())
    row = generations.query("set == 'dolly' and sample == 7 and decoding_seed == -1").iloc[0]
    assert row["text"] == answer("dolly", 7, greedy=True)


def test_samples_say_what_may_be_published(run: Run) -> None:
    samples = kdbench.load_run(run.path).samples.set_index(["set", "sample"])
    assert samples.loc[("vicuna", 3), "references"] == ["vicuna reference 3", "other"]
    assert samples.groupby("set")["redistribute"].all().to_dict() == {
        "dolly": True,
        "self-inst": True,
        "vicuna": False,
    }


def test_a_trial_that_is_not_finished_has_a_log_and_no_scores(run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    (copy / "trials/sft/seed-2/DONE.json").unlink()
    frames = kdbench.load_run(copy)
    unfinished = "variant == 'sft' and seed == 2"
    assert frames.trials.query(unfinished)["status"].tolist() == ["open"]
    assert frames.scores.query(unfinished).empty
    assert len(frames.logs.query(unfinished)) == 60


def test_a_board_has_its_tables_alone(run: Run, tmp_path: Path) -> None:
    leaderboard(run).to_csv(tmp_path / "leaderboard.csv", index=False)
    shutil.copyfile(run.path / "spec.yaml", tmp_path / "spec.yaml")
    board = kdbench.load_run(tmp_path)
    pd.testing.assert_frame_equal(board.leaderboard, leaderboard(run), check_dtype=False)
    assert isinstance(board, BoardFrames)
    with pytest.raises(AttributeError, match="no 'scores': a published board has no trials"):
        _ = board.scores
    with pytest.raises(UserError, match=r"stability\.csv: no such file"):
        _ = board.stability


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run '.*absent'"):
        kdbench.load_run(tmp_path / "absent")


def test_importing_kdbench_imports_nothing_heavy() -> None:
    code = (
        "import sys, kdbench\nassert not {'pandas', 'numpy', 'torch', 'click'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
