"""What all benchmarks share: calls timed in turn, tidy rows, the one file that holds them all."""

import gc
import importlib.metadata
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, TypeVar

from benchmarks import perf

Result = TypeVar("Result")
Calls = Mapping[str, Callable[[], object]]
"""What is compared, by who does it."""

OURS = "kdbench"
RANGE = "_range"
"""Behind a metric's name: the largest value less the smallest, of the repeats."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        threads: of each process.
        smoke: a tiny shape, once, and no row is kept.
        only: leaves out the cases whose names do not contain this text.
    """

    repeats: int
    threads: int
    smoke: bool = False
    only: str = ""


class Report:
    """Prints what a benchmark finds, and appends it to results/perf.csv case by case.

    A row holds the median of the repeats; `ratio` is a peer's median over kdbench's.
    """

    def __init__(self, benchmark: str, options: Options, packages: Sequence[str] = ()) -> None:
        self.benchmark, self.options = benchmark, options
        self.rows: list[dict[str, Any]] = []
        self._packages = ("torch", *packages)
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
        if load > cores / 4 and not options.smoke:
            print(f"other work is running here (load {load:.1f}): wait for it", file=sys.stderr)

    def wants(self, case: str) -> bool:
        """Whether this case was asked for."""
        return self.options.only in case

    def time(self, case: str, calls: Calls) -> dict[str, list[float]]:
        """Times calls in turn and adds their seconds as rows."""
        samples = in_turn(calls, self.options.repeats)
        self.compare(case, samples)
        return samples

    def compare(
        self,
        case: str,
        samples: Mapping[str, Sequence[float]],
        metric: str = "seconds",
        unit: str = "s",
    ) -> None:
        """Adds the median and the range of each one's samples; ratios where kdbench is among them.

        Whoever has no samples is left out.
        """
        ours = statistics.median(samples[OURS]) if samples.get(OURS) else None
        for who, values in samples.items():
            if values:
                median = statistics.median(values)
                ratio = median / ours if ours and who != OURS else None
                spread = max(values) - min(values) if len(values) > 1 else None
                self._add(case, who, metric, median, unit, ratio, spread)

    def value(self, case: str, who: str, metric: str, value: float, unit: str) -> None:
        """Adds one number that has no spread."""
        self._add(case, who, metric, value, unit, None, None)

    def _add(
        self,
        case: str,
        who: str,
        metric: str,
        value: float,
        unit: str,
        ratio: float | None,
        spread: float | None,
    ) -> None:
        shown = "" if ratio is None else f"{ratio:8.2f}x"
        wide = "" if spread is None else f"+-{spread / 2:.2g}"
        print(f"{case:42} {who:22} {metric:24} {value:11.4g} {unit:6} {wide:9}{shown}", flush=True)
        row = {"benchmark": self.benchmark, "case": case, "who": who, "unit": unit, **self._origin}
        row |= {"metric": metric, "value": f"{value:.5g}"}
        rows = [{**row, "ratio": "" if ratio is None else f"{ratio:.3f}"}]
        if spread is not None:
            rows.append({**row, "metric": metric + RANGE, "value": f"{spread:.3g}", "ratio": ""})
        self.rows += rows
        if not self.options.smoke:
            perf.append(rows)

    @cached_property
    def _origin(self) -> dict[str, str]:
        from kdbench.runs.provenance import commit

        found = commit()
        installed = {name: version(name) for name in self._packages}
        return {
            "hardware": hardware(self.options.threads),
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
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def hardware(threads: int) -> str:
    """The processor or the GPU, and the threads that were used."""
    from kdbench.runs.provenance import hardware as describe

    machine = describe()
    device = machine["gpu"] or f"{machine['cores']} x {machine['processor']}"
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"
