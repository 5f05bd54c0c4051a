"""Which work a run hands out: what lies in the cache is no task."""

import errno
import shutil
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.base.seal import quick_digest
from kdbench.base.store import locked, write_json
from kdbench.cli.progress import end_with, print_failures
from kdbench.config.identity import Shared
from kdbench.launch.local import Failure, Task
from kdbench.pipeline import run
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.trial import UNTRAINED
from kdbench.runs.folder import Run
from kdbench.score import write_scores
from kdbench.variants.variant import parse
from tests.conftest import ANSWERS_VERSION


@pytest.fixture
def plan(artifacts: Artifacts, tmp_path: Path) -> Plan:
    """Two trials on the micro suite, one of which needs the teacher's own answers."""
    shared = Shared(
        suite=artifacts.suite,
        data_digest=artifacts.data_key,
        backend="transformers",
        backend_version=ANSWERS_VERSION,
        dtype="float32",
    )
    return Plan(
        artifacts=artifacts,
        shared=shared,
        variants=[parse("forward-kl"), parse("seqkd")],
        seeds=1,
        init_seeds=1,
        jobs=1,
        micro_batch=16,
        compile=False,
        plugins=(),
        run=Run(tmp_path / "run"),
    )


def shared_tasks(plan: Plan) -> set[str]:
    """The tasks that belong to no trial."""
    names = {task.name for task in run.open_tasks(plan, plan.trials)}
    return {name for name in names if name.split()[0] not in ("train", "generate", "score")}


def test_all_that_trials_share_is_made_where_nothing_is_cached(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "empty"))
    models = {"teacher", "initial student", "teacher cache", "teacher's answers", run.ANSWERS}
    assert shared_tasks(plan) == {"prepare", *models}


def test_only_hidden_states_that_are_gone_are_made_again(plan: Plan) -> None:
    assert shared_tasks(plan) == set()
    kept = plan.artifacts.teacher_cache
    moved = kept.rename(kept.with_name("moved"))
    try:
        assert shared_tasks(plan) == {"teacher cache"}
    finally:
        moved.rename(kept)


def test_hidden_states_on_other_records_are_others(artifacts: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    shutil.copytree(artifacts.data_folder, folder)
    assert Artifacts(artifacts.suite, folder).teacher_cache == artifacts.teacher_cache
    records = folder / artifacts.suite.data.train.path
    first, rest = records.read_text().split("\n", 1)
    records.write_text(f"{rest}{first}\n")
    teacher = artifacts.model("teacher")
    with pytest.MonkeyPatch.context() as patch:  # the same teacher, as one that is given
        patch.setattr(Artifacts, "model", lambda self, role, init_seed=0: teacher)
        other = Artifacts(artifacts.suite, folder)
        assert other.teacher_cache != artifacts.teacher_cache
        answers = [each.teacher_answers("transformers", "1") for each in (other, artifacts)]
    assert answers[0] != answers[1]


def test_a_trial_that_failed_says_where_its_traceback_is(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {task.name: task for task in run.open_tasks(plan, plan.trials)}
    shared_task = Task("initial student", "work", print, ())
    print_failures(
        [Failure(task, ValueError("boom")) for task in (tasks["train seqkd seed 0"], shared_task)]
    )
    trial, shared = capsys.readouterr().err.splitlines()
    place = plan.run.path / "trials/seqkd/seed-0/FAILED.json"
    assert trial == f"Failed: train seqkd seed 0: ValueError: boom (traceback in {place})"
    assert shared == "Failed: initial student: ValueError: boom"


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([UserError("a mistake"), OSError(errno.ENOSPC, "full")], 2),
        ([UserError("a mistake"), ValueError("boom")], 1),
    ],
)
def test_a_command_ends_with_2_where_the_user_can_mend_all_that_failed(
    errors: list[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [Failure(Task("train", "work", print, ()), error) for error in errors]
    print_failures(failures)
    with pytest.raises(SystemExit) as stop:
        end_with(failures)
    assert stop.value.code == code
    assert "Failed: train: a mistake\n" in capsys.readouterr().err


class Said:
    """A display that keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def begin(self, tasks: int) -> None: ...

    def event(self, name: str, row: object) -> None: ...

    def done(self, task: object, seconds: float) -> None: ...

    def say(self, text: str, *, warning: bool = False) -> None:
        self.warnings += [text] if warning else []


def test_a_run_hands_out_trials_alone_where_all_else_is_cached(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    def execute(tasks: list[Task], **options: object) -> list[Failure]:
        handed.extend(task.name.split()[0] for task in tasks)
        return []

    monkeypatch.setattr(run, "execute", execute)
    run.run(plan, Said())
    assert set(handed) == {"train", "generate", "score"}


def test_a_run_that_another_command_works_on_is_left_alone(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "execute", lambda *arguments, **options: [])
    with (
        locked(plan.run.path / ".lock"),
        pytest.raises(UserError, match="another command is working on this run"),
    ):
        run.run(plan, Said())
    assert not plan.run.is_begun


def test_a_cached_student_that_finished_trials_did_not_start_from_is_warned_of(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = next(trial for trial in plan.trials if trial.name == "forward-kl")
    files = finished.files(plan.run)
    write_scores(files.scores_path, [("dolly", 0, 10, "rouge_l", 50.0)])
    vouched = {
        "weights": {"initial student": "0" * 64},
        "digests": {"scores.parquet": quick_digest(files.scores_path)},
    }
    done = {"status": "done", **UNTRAINED, **vouched, "dropout": 0.0}
    write_json(finished.files(plan.run).path / "DONE.json", done)
    monkeypatch.setattr(run, "execute", lambda *arguments, **options: [])
    display = Said()
    run.run(plan, display)
    (text,) = display.warnings
    assert "NOT PAIRED" in text
