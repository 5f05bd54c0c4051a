"""The task graph: order, side by side, failures, and a worker that dies."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from kdbench.errors import UserError
from kdbench.launch.local import Failure, Task, execute


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


def run(tasks: list[Task], lanes: int = 1) -> tuple[list[Failure], list[str]]:
    done: list[str] = []
    failures = execute(
        tasks,
        lanes=lanes,
        plugins=(),
        on_event=lambda name, row: None,
        on_done=lambda task, seconds: done.append(task.name),
    )
    return failures, done


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

    def kill_the_idle_worker(task: Task, seconds: float) -> None:
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
    failures = execute(
        tasks,
        lanes=1,
        plugins=(),
        on_event=lambda name, row: None,
        on_done=kill_the_idle_worker,
    )
    assert failures == []
    assert (tmp_path / "second").exists()


def test_a_users_mistake_arrives_as_such(tmp_path: Path) -> None:
    failures, _ = run([Task("bad", "work", fail, (tmp_path,))])
    assert isinstance(failures[0].error, UserError)
    assert str(failures[0].error) == f"no {tmp_path}"
