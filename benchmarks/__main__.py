"""`python -m benchmarks NAME`: measures, prints, appends to results/perf.csv, and draws.

    step           one training step against the floor, TRL's GKD and the padded loop
    head           every objective's value and gradient against the matrix products
    memory         the head's extra memory against all logits at once
    teacher-cache  bytes, exactness, and the time to fill it
    generate       students served one after another; on-policy sampling
    rouge          ROUGE-L against rouge-score
    run            a whole run of the embedded suite, and the start of a cached one
    grid           the time of N objectives
    scaling        operations and bytes as formulas, for models that were not measured

Run them on a machine that does nothing else. `--smoke` tries the code on a tiny shape in seconds
and keeps nothing.
"""

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence

BENCHMARKS = {
    **{name: f"{name}:measure" for name in ("step", "generate", "rouge", "scaling")},
    **{"teacher-cache": "teacher_cache:measure", "run": "runs:measure_run"},
    **{"head": "head:measure_head", "memory": "head:measure_memory", "grid": "runs:measure_grid"},
}
"""Each one's module and function."""
ONE_THREAD = ("generate", "rouge", "run", "grid")
"""What they measure has one thread a process, whatever is asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark that is named."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    threads = min(2, len(os.sched_getaffinity(0)))
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--repeats", type=int, help="[default: the benchmark's]")
    parser.add_argument("--threads", type=int, default=threads, help="[default: %(default)s]")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases that contain TEXT")
    parser.add_argument("--smoke", action="store_true", help="a tiny shape; keeps nothing")
    given = parser.parse_args(arguments)
    threads = 1 if given.name in ONE_THREAD else given.threads
    from kdbench.launch.local import WORKER_ENVIRONMENT

    # Read when torch and transformers are imported.
    os.environ.update(WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)})
    import torch

    from benchmarks.measure import Report
    from benchmarks.plots import draw

    torch.set_num_threads(threads)
    measure = pkgutil.resolve_name(f"benchmarks.{BENCHMARKS[given.name]}")
    module = sys.modules[measure.__module__]
    repeats = 1 if given.smoke else given.repeats or module.REPEATS
    packages = getattr(module, "PACKAGES", ())
    report = Report(given.name, repeats, threads, given.smoke, given.only, packages)
    measure(report)
    if report.rows and not given.smoke:
        print(f"wrote {draw(given.name, threads)}")
    return 0


if __name__ == "__main__":
    from kdbench.launch.local import WORKER_ENVIRONMENT

    # The memory allocator reads what a run's workers have before Python does.
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, os.environ | WORKER_ENVIRONMENT)
    sys.exit(main())
