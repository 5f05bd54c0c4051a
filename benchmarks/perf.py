"""The one file of all benchmarks: one tidy row a number."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

PERF = Path(__file__).parents[1] / "results" / "perf.csv"
COLUMNS = [
    *("benchmark", "case", "who", "metric", "value", "unit"),
    *("ratio", "hardware", "versions", "commit", "date"),
]


def append(rows: Sequence[Mapping[str, object]]) -> None:
    """Adds rows to the one file of all benchmarks."""
    PERF.parent.mkdir(exist_ok=True)
    new = not PERF.exists()
    with PERF.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def newest(benchmark: str) -> dict[tuple[str, str, str, str], float]:
    """The last value of each (benchmark, case, who, metric) on one machine.

    Args:
        benchmark: the machine is that of its last row.
    """
    with PERF.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    machine = next((r["hardware"] for r in reversed(rows) if r["benchmark"] == benchmark), None)
    return {
        (row["benchmark"], row["case"], row["who"], row["metric"]): float(row["value"])
        for row in rows
        if row["hardware"] == machine
    }
