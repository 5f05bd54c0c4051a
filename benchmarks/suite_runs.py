"""Whole runs of the embedded suite as other processes, timed and watched from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

INTERVAL = 1.0
KDBENCH = [sys.executable, "-c", "import sys; from kdbench.cli import main; main(sys.argv[1:])"]
SMOKE = (
    *("data.teacher.limit=64", "data.train.limit=48", "data.dev.limit=8"),
    *("data.evaluation.dolly.limit=4", "data.evaluation.self-inst.limit=4"),
    *("data.evaluation.vicuna.limit=4", "tokenizer.vocabulary=400", "decoding.max_new_tokens=4"),
    *("teacher.fit.steps=2", "student.fit.steps=2", "recipe.steps=2", "recipe.warmup=1"),
    *("teacher.fit.warmup=1", "student.fit.warmup=1"),
)
"""Changes of the suite that make a run a matter of seconds."""


def command(out: Path, *arguments: str, smoke: bool) -> list[str]:
    """`kdbench run` of the embedded suite into a folder."""
    words = [*KDBENCH, "run", "--suite", "instruct", "--out", str(out), *arguments]
    if smoke:
        words += ["--backend", "transformers", *(f"--set={setting}" for setting in SMOKE)]
    return words


@dataclass
class Watched:
    """A running process, its children's memory sampled once a second (a sample takes 25 ms).

    Attributes:
        peak: the largest proportional set size of all processes together, in MB.
    """

    process: "subprocess.Popen[bytes]"
    peak: float = 0.0
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.peak = max(self.peak, proportional_set_size(self.process.pid))
            time.sleep(INTERVAL)


def proportional_set_size(pid: int) -> float:
    """Memory of a process and all its children in MB, shared pages counted once."""
    total = 0.0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss / 2**20
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            continue
    return total


def run(words: Sequence[str], cache: Path) -> tuple[float, float]:
    """Runs a command to its end; wall seconds and peak memory in MB.

    Raises:
        subprocess.CalledProcessError: it failed; its output went to this process's.
    """
    begun = time.perf_counter()
    with subprocess.Popen(words, env=_environment(cache), stdout=subprocess.DEVNULL) as process:
        watched = Watched(process)
        code = process.wait()
    taken = time.perf_counter() - begun
    if code != 0:
        raise subprocess.CalledProcessError(code, words)
    return taken, watched.peak


def seconds_until(words: Sequence[str], cache: Path, pattern: str, folder: Path) -> float:
    """From the start of a command until a file that is not empty matches; it is ended then.

    Raises:
        RuntimeError: the command ended before there was one.
    """
    begun, nowhere = time.perf_counter(), subprocess.DEVNULL
    environment = _environment(cache)
    with subprocess.Popen(words, env=environment, stdout=nowhere, stderr=nowhere) as process:
        while not any(path.stat().st_size for path in folder.glob(pattern)):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(words)} ended with {process.returncode} too early")
            time.sleep(0.01)
        taken = time.perf_counter() - begun
        process.send_signal(signal.SIGINT)  # as Ctrl-C: it ends its workers
        process.wait()
    return taken


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "KDBENCH_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
