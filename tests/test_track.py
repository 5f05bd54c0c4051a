"""Trackers: what they hold is what the run's files say, once, and they can do a run no harm."""

import math
import os
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdbench.base.errors import UserError
from kdbench.base.store import read_jsonl, write_jsonl
from kdbench.cli import main
from kdbench.report.table import leaderboard
from kdbench.runs.folder import Run, TrialFiles
from kdbench.track import TRACKERS, Points, Status, Subject, check_trackers, flat
from kdbench.track.child import Child
from kdbench.track.follow import STATE, Follower, figures_of
from tests.conftest import Cli
from tests.synthetic_run import Variant, write_run, write_spec
from tests.track_readers import READERS, Held

VARIANTS = (
    Variant("amid[alpha=-3]", 60.0, {"alpha": -3.0}, seeds=(0, 1)),
    Variant("sft", 54.0, seeds=(0,), diverged=(0,)),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = write_run(tmp_path / tmp_path.name, VARIANTS, steps=60, sets={"dolly": 6, "vicuna": 4})
    write_spec(run, sets=("dolly", "vicuna"))
    return run


@pytest.fixture(scope="session", autouse=True)
def _trackio_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TRACKIO_DIR"] = str(tmp_path_factory.mktemp("trackio"))  # read once, at its import


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    pytest.importorskip(name, reason=f"{name} is not installed (pip install 'kdbench[{name}]')")
    for variable in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return name


def trial(run: Run, variant: str, seed: int) -> TrialFiles:
    return next(
        files for files in run.trials() if (files.spec.variant, files.spec.seed) == (variant, seed)
    )


def send(run: Run, tracker: str) -> None:
    warnings: list[str] = []
    follower = Follower(run, [tracker], warnings.append)
    follower.poll()
    follower.close()
    assert warnings == []


def held(run: Run, tracker: str, files: TrialFiles, name: str) -> Held:
    names = {name, files.path.relative_to(run.path / "trials").as_posix()}
    (found,) = (held for held in READERS[tracker](run.path) if held.name in names)
    assert isinstance(found, Held)
    return found


def test_a_trial_that_is_stopped_and_goes_on_is_one_run_with_every_step_once(
    run: Run, tracker: str
) -> None:
    files = trial(run, "amid[alpha=-3]", 1)
    rows, done = read_jsonl(files.train_log), (files.path / "DONE.json").read_text()
    (files.path / "DONE.json").unlink()
    write_jsonl(files.train_log, rows[:30])
    send(run, tracker)
    write_jsonl(files.train_log, rows[:20])  # as a resumed training cuts its log
    send(run, tracker)
    write_jsonl(files.train_log, rows)
    (files.path / "DONE.json").write_text(done)
    for _ in range(2):
        send(run, tracker)

    assert len(READERS[tracker](run.path)) == 5
    found = held(run, tracker, files, "amid[alpha=-3] seed 1")
    assert found.group == run.path.name
    for key in ("loss", "grad_norm"):
        steps, values = zip(*found.curves[f"train/{key}"], strict=True)
        assert list(steps) == list(range(1, 61))
        assert np.allclose(values, [row[key] for row in rows], rtol=1e-6)
    measured = [(row["step"], row["tvd"]) for row in rows if "tvd" in row]
    assert np.allclose(found.curves["dev/tvd"], measured, rtol=1e-6)
    assert "done" in found.text
    assert "alpha" in found.text
    assert "0.004" in found.text


def test_the_final_figures_are_the_leaderboard_s(run: Run, tracker: str) -> None:
    send(run, tracker)
    found = held(run, tracker, trial(run, "sft", 0), "sft seed 0")
    table = leaderboard(run).set_index(["variant", "set", "metric"])["mean"]
    finals = {key: values for key, values in found.curves.items() if key.startswith("final/")}
    for column in ("average", "dolly", "vicuna"):
        ((_, value),) = finals[f"final/{column}/rouge_l"]
        assert value == pytest.approx(table["sft", column, "rouge_l"], rel=1e-6)
    assert "diverged" in found.text
    assert len(found.curves["train/loss"]) == 30


class _Fake:
    """A tracker in memory, to which sending a step from `fails_at` on raises an error."""

    id = "known"

    def __init__(self, error: BaseException | None = None, fails_at: int = 1) -> None:
        self.steps: list[int] = []
        self.opened: list[tuple[str, str | None]] = []
        self.ended: list[str] = []
        self.error, self.fails_at = error, fails_at

    def open(self, tracker: str, subject: Subject, known: str | None) -> "_Fake":
        self.opened.append((subject.name, known))
        return self

    def log(self, points: Points) -> None:
        if self.error is not None and points[-1][0] >= self.fails_at:
            raise self.error
        self.steps += [step for step, _ in points]

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        self.ended.append(f"{status} at {step}")


Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Puts fakes in the place of the trackers of these names."""

    def install(**fakes: _Fake) -> None:
        monkeypatch.setattr(
            "kdbench.track.follow.open_session",
            lambda tracker, subject, known: fakes[tracker].open(tracker, subject, known),
        )

    return install


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Run, TrialFiles]:
    """A run of one trial, which ends when its file `done` becomes DONE.json."""
    run = write_run(tmp_path / "toy", [Variant("sft", 54.0, seeds=(0,))], references=False)
    write_spec(run, sets=("dolly", "vicuna"))
    (files,) = run.trials()
    (files.path / "DONE.json").rename(files.path / "done")
    return run, files


def test_a_tracker_that_fails_is_warned_of_once_and_the_rest_can_be_sent(
    alone: tuple[Run, TrialFiles], use: Use
) -> None:
    run, _ = alone
    warnings: list[str] = []
    fake, other = _Fake(ConnectionError("the server\nis gone"), fails_at=60), _Fake()
    use(wandb=fake, mlflow=other)
    follower = Follower(run, ["wandb", "mlflow"], warnings.append)
    for _ in range(3):
        follower.poll()
    follower.close()
    assert len(warnings) == 1
    assert "ConnectionError: the server is gone" in warnings[0]
    assert follower.alive == ["mlflow"]
    assert fake.steps == list(range(1, 51))
    assert other.steps == list(range(1, 61))
    fake.error = None
    send(run, "wandb")
    assert fake.steps == list(range(1, 61))
    assert fake.opened == [("sft seed 0", None), ("sft seed 0", "known")]


def test_a_killed_follower_repeats_no_step(alone: tuple[Run, TrialFiles], use: Use) -> None:
    run, files = alone
    rows = read_jsonl(files.train_log)
    write_jsonl(files.train_log, rows[:10])
    use(wandb=_Fake(SystemExit()))
    with pytest.raises(SystemExit):
        Follower(run, ["wandb"], pytest.fail).poll()
    after = _Fake()
    use(wandb=after)
    write_jsonl(files.train_log, rows[:15])
    send(run, "wandb")
    assert after.steps == [11, 12, 13, 14, 15]


def test_ctrl_c_while_sending_leaves_no_later_step_out(
    alone: tuple[Run, TrialFiles], use: Use
) -> None:
    run, files = alone
    (files.path / "done").rename(files.path / "DONE.json")
    fake = _Fake(KeyboardInterrupt())
    use(wandb=fake)
    follower = Follower(run, ["wandb"], pytest.fail)
    with pytest.raises(KeyboardInterrupt):
        follower.poll()
    fake.error = None
    follower.poll()
    assert fake.steps == list(range(51, 61))  # the first 50 were marked as sent
    assert fake.ended == ["done at 60"]


def test_rows_arrive_while_a_trial_goes_on(alone: tuple[Run, TrialFiles], use: Use) -> None:
    run, files = alone
    fake = _Fake()
    use(wandb=fake)
    rows = read_jsonl(files.train_log)
    follower = Follower(run, ["wandb"], pytest.fail)
    for count in (7, 8, 60):
        write_jsonl(files.train_log, rows[:count])
        with files.train_log.open("a") as file:
            file.write('{"step": 61, "lo')  # torn: it is still being written
        follower.poll()
        assert fake.steps == list(range(1, count + 1))
    follower.close()
    assert fake.ended == ["open at 0"]


def test_a_trial_that_is_run_anew_is_a_new_run(alone: tuple[Run, TrialFiles], use: Use) -> None:
    run, files = alone
    fake = _Fake()
    use(wandb=fake)
    send(run, "wandb")
    (files.path / STATE).unlink()  # it goes with the trial's folder
    send(run, "wandb")
    assert fake.opened == [("sft seed 0", None)] * 2
    assert fake.steps == [*range(1, 61), *range(1, 61)]


def test_figures_are_finite_and_say_where_they_were_measured() -> None:
    row = {
        "step": 3,
        "loss": 1.5,
        "clipped": True,
        "dev_nll": 2.0,
        "tvd": 0.5,
        "dev_loss": math.inf,
    }
    wanted = {"train/loss": 1.5, "train/clipped": 1.0, "dev/nll": 2.0, "dev/tvd": 0.5}
    assert figures_of(row) == wanted


def test_settings_are_flattened_by_their_path() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "x", "f": None}
    assert flat(nested) == {"a.b": 1, "a.c.d": "[1, 2]", "e": "x"}


def test_trackers_are_named_in_any_way_and_each_is_used_once() -> None:
    assert check_trackers(["tensorboard,tensorboard", "tensorboard"]) == ["tensorboard"]


def test_a_missing_library_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'kdbench\[trackio\]'"):
        check_trackers(["trackio"])


def test_every_tracker_has_an_extra_of_its_name_and_track_has_all() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert sorted(extras["track"]) == sorted(
        package for name in TRACKERS for package in extras[name]
    )


def test_nothing_runs_if_a_tracker_is_unknown(cli: Cli, micro: Path, tmp_path: Path) -> None:
    result = cli("run", "--suite", str(micro), "--track", "wandbb", check=2)
    assert "did you mean wandb?" in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_board_has_nothing_to_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    write_spec(Run(tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(["track", str(tmp_path), "--to", "tensorboard"])
    assert stop.value.code == 2
    assert "never has any" in capsys.readouterr().err
    assert not (tmp_path / ".track.lock").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; time.sleep(60)", "took nothing"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import sys; sys.stdin.read()", None),
    ],
    ids=["hangs", "dies", "ends"],
)
def test_a_run_waits_for_trackers_that_go_on_and_for_no_others(
    alone: tuple[Run, TrialFiles], monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    monkeypatch.setattr("kdbench.track.child.COMMAND", (sys.executable, "-S", "-c", code))
    monkeypatch.setattr("kdbench.track.child.PATIENCE", 1.0)
    warnings: list[str] = []
    begun = time.monotonic()
    with Child(alone[0], ["wandb"], warnings.append) as child:
        child.begin()
    assert time.monotonic() - begun < 30
    assert [said in text for text in warnings if said] == ([True] if said else [])
    assert len(warnings) == (said is not None)
