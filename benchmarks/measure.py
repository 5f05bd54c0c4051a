"""What all benchmarks share: calls timed in turn, tidy rows, the one file that holds them all."""

import csv
import gc
import importlib.metadata
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from kdbench.runs import provenance

Result = TypeVar("Result")
Calls = Mapping[str, Callable[[], object]]
"""What is compared, by who does it."""

PERF = Path(__file__).parents[1] / "results" / "perf.csv"
COLUMNS = [
    *("benchmark", "case", "who", "metric", "value", "unit"),
    *("ratio", "hardware", "versions", "commit", "date"),
]
OURS = "kdbench"
RANGE = "_range"
"""Behind a metric's name: the largest value less the smallest, of the repeats."""


@dataclass
class Report:
    """Prints what a benchmark finds, and appends it to results/perf.csv case by case.

    A row holds the median of the repeats; `ratio` is a peer's median over kdbench's.

    Attributes:
        threads: of each process.
        smoke: a tiny shape, once, and no row is kept.
        only: leaves out the cases whose names do not contain this text.
        packages: whose versions a row names beside torch's.
    """

    benchmark: str
    repeats: int
    threads: int
    smoke: bool = False
    only: str = ""
    packages: Sequence[str] = ()
    rows: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
        if load > cores / 4 and not self.smoke:
            print(f"other work is running here (load {load:.1f}): wait for it", file=sys.stderr)

    def wants(self, case: str) -> bool:
        """Whether this case was asked for."""
        return self.only in case

    def compare(
        self,
        case: str,
        samples: Mapping[str, Sequence[float]],
        metric: str = "seconds",
        unit: str = "s",
    ) -> None:
        """Adds the median of each one's samples, and the range where there are several.

        Ratios where kdbench is among them; whoever has no samples is left out.
        """
        ours = statistics.median(samples[OURS]) if samples.get(OURS) else None
        for who, values in samples.items():
            if not values:
                continue
            value, spread = statistics.median(values), max(values) - min(values)
            ratio = f"{value / ours:.3f}" if ours and who != OURS else ""
            wide = f"{f'+-{spread / 2:.2g}' if len(values) > 1 else '':9}"
            wide += f"{float(ratio):8.2f}x" if ratio else ""
            print(f"{case:42} {who:22} {metric:24} {value:11.4g} {unit:6} {wide}", flush=True)
            row = {"benchmark": self.benchmark, "case": case, "who": who, "unit": unit}
            row |= self._origin | {"metric": metric, "value": f"{value:.5g}", "ratio": ratio}
            rows = [row]
            if len(values) > 1:
                rows += [row | {"metric": metric + RANGE, "value": f"{spread:.3g}", "ratio": ""}]
            self.rows += rows
            if not self.smoke:
                append(rows)

    @cached_property
    def _origin(self) -> dict[str, str]:
        found = provenance.commit()
        installed = {name: version(name) for name in ("torch", *self.packages)}
        return {
            "hardware": hardware(self.threads),
            "versions": "; ".join(f"{name} {at}" for name, at in installed.items() if at),
            "commit": str(found["commit"])[:12] + ("-dirty" if found["dirty"] else ""),
            "date": datetime.now(UTC).date().isoformat(),
        }


def in_turn(calls: Calls, repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, all of them once in every round, after one round that does not count.

    So that what slows the machine down for a while slows all of them.
    """
    return rounds({who: partial(seconds, call) for who, call in calls.items()}, repeats)


def rounds(timers: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """As `in_turn`, of functions that return the seconds themselves."""
    for timer in timers.values():
        timer()
    samples: dict[str, list[float]] = {who: [] for who in timers}
    for _ in range(repeats):
        for who, timer in timers.items():
            samples[who].append(timer())
    return samples


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes, with everything that it started on a GPU."""
    import torch

    on_gpu = torch.cuda.is_available()
    gc.collect()
    if on_gpu:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function in a fresh process.

    Raises:
        concurrent.futures.process.BrokenProcessPool: it died, as for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def hardware(threads: int) -> str:
    """The processor or the GPU, and the threads that were used."""
    machine = provenance.hardware()
    device = machine["gpu"] or f"{machine['cores']} x {machine['processor']}"
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def append(rows: Sequence[Mapping[str, object]]) -> None:
    """Adds rows to the one file of all benchmarks."""
    PERF.parent.mkdir(exist_ok=True)
    with PERF.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def newest(benchmark: str) -> dict[tuple[str, ...], float]:
    """The last value by benchmark, case, who and metric, on the machine of its last row."""
    import pandas as pd

    rows = pd.read_csv(PERF)
    keys, machine = ["benchmark", "case", "who", "metric"], rows["hardware"]
    here = rows[machine.isin(machine[rows["benchmark"] == benchmark].tail(1))]
    found: dict[tuple[str, ...], float] = here.groupby(keys)["value"].last().to_dict()
    return found
