"""`kdbench run` for real: from nothing to a leaderboard, again, extended, changed, killed."""

import importlib.util
import json
import os
import shutil
import signal
import zipfile
from pathlib import Path

import pandas as pd
import psutil
import pytest

from kdbench.base.store import read_jsonl
from kdbench.cli.publish import command as publish
from kdbench.cli.status import describe
from kdbench.runs.folder import Run
from tests.conftest import Cli
from tests.stopped_run import start_and_wait_until_stopped
from tests.track_readers import read_tensorboard

RUN = ("run", "--suite", "micro.yaml", "--backend", "transformers", "--jobs", "2")
OBJECTIVES = ("--objectives", "sft,forward-kl,amid[alpha=-3]")
COLUMNS = ["variant", "objective", "params", "set", "metric", "mean", "ci_low", "ci_high"]
COLUMNS += ["sd_train", "n_seeds", "n_samples", "tier"]

pytestmark = pytest.mark.slow


def result_bytes(run: Path) -> dict[str, bytes]:
    """Scores and generations of every trial, by path."""
    paths = [*run.glob("trials/*/*/scores.parquet"), *run.glob("trials/*/*/generations/*.jsonl")]
    assert paths
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(paths)}


def averages(run: Path, metric: str = "rouge_l") -> pd.DataFrame:
    """The rows of the leaderboard that hold a metric's average over sets, by variant."""
    board = pd.read_csv(run / "leaderboard.csv")
    return board[(board.metric == metric) & (board["set"] == "average")].set_index("variant")


def modification_times(run: Path) -> dict[str, float]:
    paths = [path for path in run.rglob("trials/*/*/*") if path.is_file() and path.name != ".lock"]
    return {str(path): path.stat().st_mtime for path in paths}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an uninterrupted run of three objectives and two seeds stands."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def complete(finished: Path, micro: Path, cli_process: Cli) -> Path:
    """The finished run's folder, made by the first test that asks for it."""
    if not (finished / "micro" / "leaderboard.csv").exists():
        cli_process(*RUN, *OBJECTIVES, "--out", str(finished))
    return finished / "micro"


def test_run_ends_with_a_tidy_leaderboard(complete: Path) -> None:
    board = pd.read_csv(complete / "leaderboard.csv")
    assert list(board.columns[: len(COLUMNS)]) == COLUMNS
    objectives = ["sft", "forward-kl", "amid[alpha=-3]"]
    assert set(board.variant) == {"teacher", "initial student", *objectives}
    assert set(board["set"]) == {"dolly", "vicuna", "average"}
    assert {"rouge_l", "rouge_l_greedy", "exact_match", "length", "distinct_2"} == set(board.metric)
    average = averages(complete)
    assert average.loc["sft", "n_seeds"] == 2
    assert average.loc[["teacher", "initial student"], "tier"].isna().all()
    assert average.loc[objectives, "tier"].notna().all()


def test_every_mean_of_the_leaderboard_follows_from_the_stored_rows(complete: Path) -> None:
    board = pd.read_csv(complete / "leaderboard.csv")
    for variant, slug in [("sft", "sft"), ("amid[alpha=-3]", "amid_alpha_-3")]:
        scores = pd.concat(
            pd.read_parquet(complete / "trials" / slug / f"seed-{seed}" / "scores.parquet")
            for seed in range(2)
        )
        rows = board[(board.variant == variant) & (board.metric == "rouge_l")].set_index("set")
        means = scores[scores.metric == "rouge_l"].groupby("set").value.mean()
        for name in ("dolly", "vicuna"):
            assert rows.loc[name, "mean"] == pytest.approx(means[name])
        assert rows.loc["average", "mean"] == pytest.approx(means.mean())


def test_files_of_the_run_are_the_contract(complete: Path) -> None:
    for name in ("spec.yaml", "provenance.json", "leaderboard.md", "stability.csv"):
        assert (complete / name).stat().st_size > 0
    for kind in ("png", "svg"):
        assert list((complete / "plots").glob(f"*.{kind}"))
    trial = complete / "trials" / "forward-kl" / "seed-1"
    assert json.loads((trial / "DONE.json").read_text())["status"] == "done"
    assert not list(complete.rglob("*.tmp"))
    provenance = json.loads((complete / "provenance.json").read_text())
    assert provenance["commands"][0]["trials_done"] == 8
    assert os.uname().nodename not in json.dumps(provenance)


def test_exactly_one_answer_per_sample_and_seed(complete: Path) -> None:
    lines = (complete / "trials/sft/seed-0/generations/dolly.jsonl").read_text().splitlines()
    assert [json.loads(line)["sample"] for line in lines] == list(range(8))
    assert {json.loads(line)["decoding_seed"] for line in lines} == {10}


def test_the_same_command_again_recomputes_nothing(complete: Path, micro: Path, cli: Cli) -> None:
    before = modification_times(complete)
    output = cli(*RUN, *OBJECTIVES, "--out", str(complete.parent)).stdout
    assert "nothing to do" in output
    assert modification_times(complete) == before


def test_seeds_equal_by_content_are_found_again_in_another_spelling(
    complete: Path, micro: Path, cli: Cli
) -> None:
    spelled = "amid[alpha=-3.0,teacher_weight=0.1],kl"
    arguments = (*RUN, "--objectives", spelled, "--out", str(complete.parent), "--dry-run")
    assert "0 of 6 to do" in cli(*arguments).stdout


def test_changed_shared_field_is_refused_and_named(complete: Path, micro: Path, cli: Cli) -> None:
    before = modification_times(complete)
    arguments = (*RUN, *OBJECTIVES, "--out", str(complete.parent), "--set", "recipe.lr=0.5")
    result = cli(*arguments, check=2)
    assert "suite.recipe.lr: 0.003 -> 0.5" in result.stderr
    assert modification_times(complete) == before


def test_report_rebuilds_the_same_tables(complete: Path, cli: Cli) -> None:
    before = (complete / "leaderboard.csv").read_bytes()
    (complete / "leaderboard.csv").unlink()
    cli("report", "micro", "--out", str(complete.parent))
    assert (complete / "leaderboard.csv").read_bytes() == before


def test_status_lists_every_trial(complete: Path, cli: Cli) -> None:
    rows = json.loads(cli("status", "micro", "--out", str(complete.parent), "--json").stdout)
    assert len(rows) == 8
    assert {row["state"] for row in rows} == {"done"}


def test_publish_copies_tables_and_plots_only(complete: Path, cli: Cli) -> None:
    cli("publish", "micro", "--out", str(complete.parent))
    board = complete.parent / "boards" / "micro"
    assert {path.name for path in board.iterdir()} == {
        "leaderboard.csv", "leaderboard.html", "leaderboard.md", "leaderboard.tex",
        "stability.md", "stability.csv", "stability_comparisons.csv", "spikes.csv", "cost.csv",
        "evidence.md", "ranks.csv", "comparisons.csv", "variance.csv",
        "spec.yaml", "provenance.json", "plots",
    }  # fmt: skip


def test_more_objectives_and_seeds_extend_a_run(micro: Path, cli: Cli, tmp_path: Path) -> None:
    cli(*RUN, "--objectives", "sft", "--seeds", "1")
    before = modification_times(tmp_path / "results" / "micro")
    cli(*RUN, "--objectives", "jsd[beta=0.9]", "--seeds", "2")
    run = tmp_path / "results" / "micro"
    after = modification_times(run)
    assert {path: after[path] for path in before} == before
    average = averages(run)
    assert average.loc["sft", "n_seeds"] == 1
    assert average.loc["jsd[beta=0.9]", "n_seeds"] == 2


def test_more_initial_students_extend_a_run(
    complete: Path, micro: Path, cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "results" / "micro"
    shutil.copytree(complete, run)
    before = modification_times(run)
    cli(*RUN, "--objectives", "sft", "--init-seeds", "2")
    after = modification_times(run)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in run.glob("trials/*/*.init-1/DONE.json")} == {
        "seed-0.init-1",
        "seed-1.init-1",
    }
    answers = [
        (run / "trials/initial-student" / name / "generations/dolly.jsonl").read_text()
        for name in ("seed-0", "seed-0.init-1")
    ]
    assert answers[0] != answers[1]
    assert averages(run)["n_init_seeds"][["initial student", "sft", "forward-kl"]].tolist() == [
        2,
        2,
        1,
    ]
    assert json.loads((run / "provenance.json").read_text())["mixed"] == []
    assert sum(describe(trial)["init_seed"] for trial in Run(run).trials()) == 3


def test_a_fresh_machine_goes_on_from_a_board_to_the_same_leaderboard(
    complete: Path, micro: Path, cli: Cli, tmp_path: Path
) -> None:
    half = tmp_path / "there" / "micro"
    shutil.copytree(complete, half)
    (half / "trials" / "amid_alpha_-3" / "seed-1" / "DONE.json").unlink()
    publish.main(["micro", "--out", str(half.parent), "--trials"], standalone_mode=False)
    board = tmp_path / "there" / "boards" / "micro"
    with zipfile.ZipFile(board / "trials.zip") as archive:
        packed = b"".join(map(archive.read, archive.namelist()))
    asked = [json.loads(line) for line in (complete / "samples/dolly.jsonl").open()]
    assert not any(row["text"][0].encode() in packed for row in asked)
    again = ("--accept", str(board), "--publish", "--jobs", "1")
    output = cli(*RUN, *OBJECTIVES, *again).stdout
    assert "7 trials accepted" in output
    assert "train sft" not in output
    run = tmp_path / "results" / "micro"
    assert result_bytes(run) == result_bytes(complete)
    for name in ("leaderboard.csv", "stability.csv"):
        assert (run / name).read_bytes() == (complete / name).read_bytes()
    (taken,) = json.loads((run / "provenance.json").read_text())["accepted"]
    assert len(taken["trials"]) == 7
    assert "8 trials in trials.zip" in output


def test_methods_run_under_their_names_and_say_what_they_cost(
    micro: Path, cli: Cli, tmp_path: Path
) -> None:
    objectives = ("--objectives", "gkd,distillm-2,jsd@student,jsd", "--seeds", "1")
    cli(*RUN, *objectives)
    run = tmp_path / "results" / "micro"
    cost = pd.read_csv(run / "cost.csv").set_index("variant")
    assert {"gkd", "distillm-2", "jsd@student", "jsd"} <= set(cost.index)
    assert cost.teacher_passes["jsd"] == cost.generated_tokens["jsd"] == 0
    assert cost.teacher_passes["jsd@student"] == cost.teacher_passes["distillm-2"] == 12 * 16
    assert 0 < cost.generated_tokens["gkd"] < cost.generated_tokens["jsd@student"]
    spec = json.loads((run / "trials/gkd/seed-0/spec.json").read_text())
    assert spec["source"] == {"name": "mixed", "params": {"student_share": 0.5}}
    before = modification_times(run)
    assert "nothing to do" in cli(*RUN, *objectives).stdout
    assert modification_times(run) == before


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "vicuna.jsonl", "scores.parquet"])
def test_killed_run_goes_on_to_byte_identical_results(
    complete: Path, micro: Path, cli: Cli, tmp_path: Path, file: str
) -> None:
    flags = ("--track", "tensorboard") if file == "checkpoint.safetensors" else ()
    process = start_and_wait_until_stopped((*RUN, *OBJECTIVES, *flags), tmp_path, file)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cli(*RUN, *OBJECTIVES, *flags)
    run = tmp_path / "results" / "micro"
    assert result_bytes(run) == result_bytes(complete)
    assert not list((tmp_path / "results").rglob("*.tmp"))
    if flags:
        assert_tracked_once(run)


def assert_tracked_once(run: Path) -> None:
    """Every trial is in TensorBoard with all steps of its log once, and with its final figure."""
    board = pd.read_csv(run / "leaderboard.csv").set_index(["variant", "set", "metric"])["mean"]
    held = {found.name: found.curves for found in read_tensorboard(run)}
    for spec in run.glob("trials/*/*/spec.json"):
        curves = held[spec.parent.relative_to(run / "trials").as_posix()]
        log = [row["step"] for row in read_jsonl(spec.parent / "train.jsonl")]
        assert [step for step, _ in curves.get("train/loss", [])] == log
    for name in ("teacher", "initial student"):
        slug = name.replace(" ", "-")
        ((_, final),) = held[f"{slug}/seed-0"]["final/average/rouge_l"]
        assert final == pytest.approx(board[name, "average", "rouge_l"], rel=1e-6)


def test_a_tracker_that_fails_is_one_warning_and_no_more(
    complete: Path, micro: Path, cli_process: Cli, tmp_path: Path
) -> None:
    shutil.copytree(complete, tmp_path / "results" / "micro")
    (tmp_path / "results" / "micro" / "tensorboard").write_text("no folder")
    before = result_bytes(complete)
    result = cli_process(*RUN, *OBJECTIVES, "--track", "tensorboard")
    assert result.stderr.count("Warning") == 1
    assert "tracker tensorboard failed" in result.stderr
    assert "kdbench track" in result.stderr
    assert "Traceback" not in result.stderr
    assert result_bytes(tmp_path / "results" / "micro") == before
    cli_process("track", "micro", "--to", "tensorboard", check=1)


def test_an_interrupted_run_ends_at_once_and_says_how_to_go_on(
    complete: Path, micro: Path, tmp_path: Path
) -> None:
    process = start_and_wait_until_stopped((*RUN, *OBJECTIVES), tmp_path, "checkpoint.safetensors")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_vllm_serves_a_whole_run(micro: Path, cli: Cli, tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    cli("run", "--suite", "micro.yaml", "--objectives", "sft", "--seeds", "1", "--backend", "vllm")
    greedy = averages(tmp_path / "results/micro", "rouge_l_greedy")
    assert set(greedy.index) == {"teacher", "initial student", "sft"}


DIRTY_PLUGIN = """
import os, warnings
import numpy, torch
from kdbench.api import divergence, kl

@divergence("dirty", source="a test")
def dirty(teacher_logp, student_logp):
    value = kl(teacher_logp, student_logp)
    torch.set_default_dtype(torch.float64)
    torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    torch.nn.functional.silu = torch.tanh
    os.environ["OMP_NUM_THREADS"] = "3"
    numpy.seterr(all="raise")
    return value
"""


def test_what_an_objective_changes_for_its_process_reaches_no_other_trial(
    complete: Path, micro: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "dirty.py").write_text(DIRTY_PLUGIN)
    arguments = ("--objectives", "dirty,sft", "--plugin", "dirty.py", "--seeds", "1")
    result = cli(*RUN[:-1], "1", *arguments)
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("WARNING")]
    assert "the objective dirty changes" in said
    for text in ("OMP_NUM_THREADS", "numpy's error state", "torch's default dtype"):
        assert text in said
    found, clean = result_bytes(tmp_path / "results/micro"), result_bytes(complete)
    own = {name for name in found if name.startswith("trials/dirty/")}
    assert own
    assert found.keys() - own <= clean.keys()
    assert {name for name in found.keys() - own if found[name] != clean[name]} == set()
