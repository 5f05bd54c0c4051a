"""The task graph: order, side by side, failures, and a worker that dies."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdbench.base.errors import UserError
from kdbench.launch.local import Failure, Task, early_worker, execute
from kdbench.variants.select import load_plugin
from kdbench.variants.variant import Variant, parse


def touch(path: Path) -> None:
    path.touch()


def touch_after(path: Path, before: Path) -> None:
    assert before.exists()
    path.touch()


def fail(path: Path) -> None:
    raise UserError(f"no {path}")


def die(path: Path) -> None:
    os._exit(3)


def meet(mine: Path, other: Path) -> None:
    """Ends only when another task has started too."""
    mine.touch()
    deadline = time.monotonic() + 60
    while not other.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(
    tasks: list[Task],
    lanes: int = 1,
    plugins: tuple[Path, ...] = (),
    after: Callable[[Task], None] = lambda task: None,
) -> tuple[list[Failure], list[str]]:
    done: list[str] = []

    def on_done(task: Task, seconds: float) -> None:
        done.append(task.name)
        after(task)

    options: Any = {"on_event": lambda name, row: None, "on_done": on_done}
    return execute(tasks, lanes=lanes, plugins=plugins, **options), done


def test_tasks_wait_for_what_they_need(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    tasks = [
        Task("second", "generate", touch_after, (second, first), needs=("first",)),
        Task("first", "work", touch, (first,)),
    ]
    failures, done = run(tasks)
    assert failures == []
    assert done == ["first", "second"]


def test_lanes_run_side_by_side(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    tasks = [Task("a", "work", meet, (a, b)), Task("b", "work", meet, (b, a))]
    failures, done = run(tasks, lanes=2)
    assert failures == []
    assert sorted(done) == ["a", "b"]


@pytest.mark.parametrize("call", [fail, die])
def test_a_failure_drops_only_what_needs_it(tmp_path: Path, call: object) -> None:
    tasks = [
        Task("bad", "work", call, (tmp_path / "bad",)),  # type: ignore[arg-type]
        Task("lost", "work", touch, (tmp_path / "lost",), needs=("bad",)),
        Task("lost too", "work", touch, (tmp_path / "too",), needs=("lost",)),
        Task("good", "work", touch, (tmp_path / "good",)),
    ]
    failures, done = run(tasks)
    assert [failure.task.name for failure in failures] == ["bad"]
    assert done == ["good"]
    assert not (tmp_path / "lost").exists()


def test_a_worker_that_died_idle_is_replaced(tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    def kill_the_idle_worker(task: Task) -> None:
        if task.name == "first":
            for process in multiprocessing.active_children():
                process.kill()
                process.join()
            time.sleep(1)  # the executor has to notice
            killed.touch()

    tasks = [
        Task("first", "work", touch, (tmp_path / "first",)),
        Task("second", "work", touch_after, (tmp_path / "second", killed), needs=("first",)),
    ]
    assert run(tasks, after=kill_the_idle_worker) == ([], ["first", "second"])


def write_pid(path: Path) -> None:
    path.write_text(str(os.getpid()))


def test_a_worker_that_was_started_early_does_the_first_task(tmp_path: Path) -> None:
    with early_worker():
        (started,) = multiprocessing.active_children()
        assert run([]) == ([], [])  # a run with nothing to do leaves it for the next
        assert run([Task("pid", "work", write_pid, (tmp_path / "pid",))]) == ([], ["pid"])
    assert (tmp_path / "pid").read_text() == str(started.pid)


def test_a_worker_that_nobody_needs_is_ended_with_the_command() -> None:
    before = dict(os.environ)
    with early_worker():
        (started,) = multiprocessing.active_children()
        assert dict(os.environ) == before
    assert started.exitcode is not None


PLUGIN = """
from kdbench.api import divergence

@divergence("NAME", source="this test")
def launched(teacher_logp, student_logp):
    return (teacher_logp - student_logp).abs().sum(-1)
"""


def write_name(path: Path, variant: Variant) -> None:
    path.write_text(variant.name)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("worker", ["work", "generate"])
def test_a_workers_first_task_may_be_of_a_plugins_objective(tmp_path: Path, worker: Any) -> None:
    plugin, name = tmp_path / "plugin.py", f"launched-{worker}"
    plugin.write_text(PLUGIN.replace("NAME", name))
    load_plugin(plugin)
    task = Task("a", worker, write_name, (tmp_path / "name", parse(name)))
    assert run([task], plugins=(plugin,)) == ([], ["a"])
    assert (tmp_path / "name").read_text() == name


def test_a_users_mistake_arrives_as_such(tmp_path: Path) -> None:
    failures, _ = run([Task("bad", "work", fail, (tmp_path,))])
    assert isinstance(failures[0].error, UserError)
    assert str(failures[0].error) == f"no {tmp_path}"
