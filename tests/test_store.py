"""Locks: one holder at a time, also between processes, and none that a dead process keeps."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdbench.base.errors import UserError
from kdbench.base.store import is_locked, locked, new_folder, sweep, temporary_name, write_bytes

HOLD = """
import pathlib, sys, time
from kdbench.base.store import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the lock."""
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_what_another_process_holds_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    assert not is_locked(path)
    assert not path.parent.exists()
    with holder(path) as process:
        assert is_locked(path)
        with pytest.raises(UserError, match="busy"), locked(path, "busy"):
            raise AssertionError("two hold it")
        sweep(tmp_path)
        assert is_locked(path)
        process.kill()
        process.wait()
        assert not is_locked(path)
    with locked(path, "busy"):
        assert is_locked(path)
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


def test_without_a_message_it_waits(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        ended = threading.Timer(0.5, process.kill)
        begun = time.monotonic()
        ended.start()
        with locked(path):
            assert time.monotonic() - begun > 0.4


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ZeroDivisionError), locked(path, "busy"):
        raise ZeroDivisionError
    assert not is_locked(path)


def test_asking_makes_nobody_busy(tmp_path: Path) -> None:
    """`kdbench status` asks again and again while a command begins."""
    path, stop = tmp_path / ".lock", threading.Event()
    with locked(path):
        pass

    def ask() -> None:
        while not stop.is_set():
            is_locked(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(50):
            with locked(path, "busy"):
                pass
    finally:
        stop.set()
        asking.join()


def run_in_a_process_killed_at(call: int, work: Callable[[], None]) -> bool:
    """Whether `work` came to the end in a child that dies before its `call`-th change of a name."""
    child = os.fork()
    if child == 0:
        left = [call]

        def killed(change: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                return os._exit(9) if left[0] < 0 else change(*arguments, **options)

            return wrapped

        for name in ("rename", "replace", "unlink", "mkdir"):
            setattr(Path, name, killed(getattr(Path, name)))
        shutil.rmtree = killed(shutil.rmtree)  # type: ignore[assignment]
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_folder_is_the_old_or_the_new_one_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    board = tmp_path / "board"

    def write(text: str) -> None:
        with new_folder(board) as folder:
            for name in ("a", "b"):
                (folder / name).write_text(text)

    write("old")
    for call in range(20):
        ended = run_in_a_process_killed_at(call, lambda: write("new"))
        sweep(tmp_path)
        assert os.listdir(tmp_path) == ["board"]
        texts = {(board / name).read_text() for name in ("a", "b")}
        assert texts in ({"old"}, {"new"})
        write("old")
        if ended:
            break
    assert call >= 4


def test_sweeping_leaves_what_a_living_process_writes(tmp_path: Path) -> None:
    with new_folder(tmp_path / "board") as folder:
        sweep(tmp_path)
        (folder / "a").write_text("here")
    assert (tmp_path / "board" / "a").read_text() == "here"


def test_sweeping_clears_what_a_dead_process_left(tmp_path: Path) -> None:
    with holder(tmp_path / ".lock") as process:
        left = temporary_name(tmp_path / "scores.parquet", process.pid)
        left.touch()
        sweep(tmp_path)
        assert left.exists()
        process.kill()
        process.wait()
        sweep(tmp_path)
        assert not left.exists()


def test_what_is_written_is_on_the_disk_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}"))
    )
    write_bytes(tmp_path / "DONE.json", b"{}")
    with new_folder(tmp_path / "model") as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    names = [Path(path).name.removesuffix(".tmp") for path in synced]
    assert "DONE.json" in names
    assert "model.safetensors" in names
    assert synced.count(str(tmp_path)) == 2
