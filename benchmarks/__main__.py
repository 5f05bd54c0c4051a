"""`python -m benchmarks NAME`: measures, prints, and appends to results/perf.csv."""

import importlib
import sys

BENCHMARKS = ("memory",)


def main() -> int:
    """Runs the benchmark that was named."""
    if len(sys.argv) != 2 or sys.argv[1] not in BENCHMARKS:
        print(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}}")
        return 2
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
