"""Equal budgets on the real command line: candidates, the choice on dev, the run of the chosen."""

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from kdbench.base.errors import UserError
from kdbench.base.store import read_json
from kdbench.cli.plan import show
from kdbench.cli.status import command as status
from kdbench.pipeline.plan import Request, make_plan, write_spec
from kdbench.pipeline.tuned_plan import chosen_plan
from kdbench.runs.folder import Run, TrialFiles
from tests.conftest import KDBENCH, MICRO_SUITE

FLAGS = [
    "--objectives", "sft", "--seeds", "1", "--tuning", "2", "--lr-sensitivity",
    "--backend", "transformers", "--jobs", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with the micro suite and a tuned run of it."""
    path = tmp_path_factory.mktemp("tuned")
    (path / "micro.yaml").write_text(MICRO_SUITE)
    result = run_again(path, cache)
    assert result.returncode == 0, result.stdout + result.stderr
    return path


@pytest.fixture
def run(folder: Path) -> Run:
    return Run(folder / "results" / "micro")


def run_again(folder: Path, cache: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*KDBENCH, "run", "--suite", "micro.yaml", *FLAGS],
        cwd=folder,
        env={**os.environ, "KDBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def request(folder: Path, **fields: object) -> Request:
    given = {"objectives": "sft", "seeds": 1, "backend": "transformers", "jobs": 1, **fields}
    return Request(suite=str(folder / "micro.yaml"), out=folder / "results", **given)  # type: ignore[arg-type]


def trained(run: Run) -> list[TrialFiles]:
    return [files for files in run.trials() if not files.spec.reference]


def sets_of(files: TrialFiles) -> set[str]:
    return set(pq.read_table(files.scores_path)["set"].to_pylist())


def test_dev_is_scored_for_the_candidates_and_never_in_the_main_run(run: Run) -> None:
    nested = [sets_of(files) for files in trained(Run(run.path / "tuning"))]
    assert nested == [{"dolly", "vicuna", "dev"}] * 2
    assert {name for files in trained(run) for name in sets_of(files)} == {"dolly", "vicuna"}


def test_chosen_is_the_best_on_dev(run: Run) -> None:
    scores = {}
    for files in trained(Run(run.path / "tuning")):
        rows = pq.read_table(files.scores_path).to_pandas()
        dev = rows[(rows["set"] == "dev") & (rows["metric"] == "rouge_l")]
        assert len(dev) == 12
        scores[files.spec.variant] = dev["value"].mean()
    record = read_json(run.path / "tuning.json")["objectives"]["sft"]
    assert {c["variant"]: c["dev"] for c in record["candidates"]} == pytest.approx(scores)
    assert scores[record["chosen"]] == max(scores.values())


def test_main_run_trains_the_chosen_and_its_neighbours_with_their_own_rates(run: Run) -> None:
    record = read_json(run.path / "tuning.json")["objectives"]["sft"]
    (chosen,) = [c for c in record["candidates"] if c["variant"] == record["chosen"]]
    rates = {files.spec.lr or 0.003 for files in trained(run)}
    assert rates == {chosen["lr"] * factor for factor in (0.5, 1, 2)}
    assert {files.spec.seed for files in trained(run)} == {0}
    assert {files.spec.seed for files in trained(Run(run.path / "tuning"))} == {1000}

    for files in trained(run):
        first = files.train_log.read_text().splitlines()[1]  # the warm-up has two steps
        assert yaml.safe_load(first)["lr"] == pytest.approx(files.spec.lr or 0.003)


def test_reports_and_spec_say_what_was_tuned(run: Run) -> None:
    spec = yaml.safe_load((run.path / "spec.yaml").read_text())
    expected = {"trials": 2, "seeds": 1, "split": "dev", "metric": "rouge_l"}
    assert spec["tuning"] == expected
    assert "tuned: 2 trials each on dev" in (run.path / "leaderboard.md").read_text()
    assert "| `sft` |" in (run.path / "tuning.md").read_text()
    assert (run.path / "plots" / "lr-sensitivity.svg").exists()


def test_same_command_again_has_nothing_to_do(folder: Path, run: Run, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("scores.parquet")}
    result = run_again(folder, cache)
    assert result.stdout.count("nothing to do: all trials are done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("scores.parquet")}


def test_status_counts_the_candidates_too(folder: Path, run: Run) -> None:
    shown = CliRunner().invoke(status, ["micro", "--out", str(folder / "results")]).output
    assert shown.endswith(f"{run.path}: 5 trials: 5 done\n{run.path}/tuning: 4 trials: 4 done\n")


@pytest.mark.parametrize("asked", [None, 3])
def test_a_tuned_run_is_not_extended_with_another_budget(folder: Path, asked: int | None) -> None:
    with pytest.raises(UserError, match=f"made with --tuning 2 .* --tuning {asked or 'fixed'}:"):
        make_plan(request(folder, tuning=asked))


def test_a_fixed_run_is_not_extended_with_tuning(tmp_path: Path) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE)
    write_spec(make_plan(request(tmp_path)))
    with pytest.raises(UserError, match=r"made with --tuning fixed .* --tuning 2:"):
        make_plan(request(tmp_path, tuning=2))


def test_plan_shows_the_cost_of_the_candidates_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(make_plan(request(folder, tuning=4, name="other", tuning_seeds=2)), as_json=False)
    shown = capsys.readouterr().out
    assert "other/tuning: 4 variants, 2 seeds" in shown
    assert "trials     10 of 10 to do" in shown
    assert "budget     4 candidates for each objective; the dev set chooses" in shown
    assert shown.index("other/tuning") < shown.index("other: 1 variant, 1 seed")


def test_a_rate_below_the_schedules_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE)
    settings = ("recipe.min_lr=0.001",)
    with pytest.raises(UserError, match=r"sft\[lr=0.0001\]: its learning rate is below"):
        make_plan(request(tmp_path, objectives="sft[lr=0.0001]", settings=settings))


def test_a_rate_that_dev_may_choose_is_checked_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE)
    settings = ("recipe.min_lr=0.0007",)  # the candidates' rates begin at 0.00075
    make_plan(request(tmp_path, tuning=8, settings=settings))
    with pytest.raises(UserError, match="its learning rate is below"):
        make_plan(request(tmp_path, tuning=8, settings=settings, lr_sensitivity=True))


def test_an_objective_of_which_a_candidate_failed_is_left_out_and_the_others_go_on(
    run: Run, folder: Path
) -> None:
    plan = make_plan(request(folder, objectives="sft,forward-kl", tuning=2))
    assert {variant.objective.name for variant in chosen_plan(plan).variants} == {"sft"}
    with pytest.raises(UserError, match=r"forward-kl.* is not finished"):
        chosen_plan(make_plan(request(folder, objectives="forward-kl", tuning=2)))
