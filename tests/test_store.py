"""Locks: one holder at a time, also between processes, and none that a dead process keeps."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.base.store import is_locked, locked, sweep

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
