"""A run on the real command line that stops in the middle of writing a file, to be killed there."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import KDBENCH

SLOW_PLUGIN = '''
"""Stops for a minute in the middle of writing the file that KDBENCH_TEST_STOP_AT names."""
import contextlib, os, pathlib, time
from kdbench.base import store
from kdbench.api import divergence, kl

@divergence("slow", source="a test")
def slow(teacher_logp, student_logp):
    return kl(teacher_logp, student_logp)

write_bytes, new_file = store.write_bytes, store.new_file

def is_named(path):
    return os.environ.get("KDBENCH_TEST_STOP_AT") == path.name and "forward-kl" in str(path)

def stop():
    pathlib.Path("stopped").touch()
    time.sleep(60)

def stopping(path, content):
    if is_named(path):
        store.temporary_name(path, os.getpid()).write_bytes(content[: len(content) // 2])
        stop()
    write_bytes(path, content)

@contextlib.contextmanager
def stopping_file(path):
    with new_file(path) as temporary:
        yield temporary
        if is_named(path):
            os.truncate(temporary, temporary.stat().st_size // 2)
            stop()

store.write_bytes, store.new_file = stopping, stopping_file
'''


def start_and_wait_until_stopped(
    arguments: Sequence[str], folder: Path, file: str
) -> "subprocess.Popen[str]":
    """A `kdbench` in `folder` that has come to the middle of writing a forward-kl trial's file."""
    (folder / "slow.py").write_text(SLOW_PLUGIN)
    process = subprocess.Popen(
        [*KDBENCH, *arguments, "--plugin", "slow.py"],
        cwd=folder,
        env={**os.environ, "KDBENCH_TEST_STOP_AT": file},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # What was started in the background of a shell ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while not (folder / "stopped").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process
