"""Peak memory of the head: chunked against all logits at once, each in a process of its own.

The peak resident set of a process that does one forward and backward pass of an objective, less
that of one that only holds the inputs.
"""

import csv
import importlib.metadata
import multiprocessing
import resource
from datetime import UTC, datetime
from pathlib import Path

from kdbench.provenance import commit, hardware

PERF = Path("results/perf.csv")
COLUMNS = [
    *("benchmark", "case", "who", "metric", "value", "unit"),
    *("ratio", "hardware", "versions", "commit", "date"),
]
WIDTH, TEACHER_WIDTH = 256, 512
VOCABULARIES = (50_257, 151_936)
TOKENS = (1024, 2048, 4096)
OBJECTIVE = "forward-kl"
UNCHUNKED_LIMIT_GB = 16.0
"""All logits at once are only tried where about eight copies of them fit."""


def main() -> None:
    """Prints a table and appends its rows to results/perf.csv."""
    rows = []
    print(f"{'V':>8} {'tokens':>7} {'chunked MB':>11} {'unchunked MB':>13} {'ratio':>6}")
    for vocabulary in VOCABULARIES:
        for tokens in TOKENS:
            base = peak(vocabulary, tokens, "inputs")
            chunked = peak(vocabulary, tokens, "chunked") - base
            fits = 8 * 4 * vocabulary * tokens / 1e9 < UNCHUNKED_LIMIT_GB
            plain = peak(vocabulary, tokens, "unchunked") - base if fits else None
            case = f"{OBJECTIVE} V={vocabulary} tokens={tokens}"
            rows.append(row(case, "kdbench", chunked, None))
            if plain is not None:
                rows.append(row(case, "unchunked", plain, plain / chunked))
            shown = "too large" if plain is None else f"{plain:.0f}"
            ratio = "" if plain is None else f"{plain / chunked:.1f}"
            print(f"{vocabulary:8} {tokens:7} {chunked:11.0f} {shown:>13} {ratio:>6}", flush=True)
    append(rows)


def peak(vocabulary: int, tokens: int, what: str) -> float:
    """Peak resident memory in MB of a fresh process that does one pass."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_pass, (vocabulary, tokens, what))


def _pass(vocabulary: int, tokens: int, what: str) -> float:
    import torch

    from kdbench.expressions import parse
    from kdbench.models import Head
    from kdbench.spec import Loss
    from kdbench.train.head import Teacher, chunked_loss, per_token_loss, plain_loss

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, WIDTH, generator=generator).mul_(0.05).requires_grad_()
    teacher = Teacher(
        torch.randn(tokens, TEACHER_WIDTH, generator=generator),
        Head(torch.randn(vocabulary, TEACHER_WIDTH, generator=generator).mul_(0.05)),
    )
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    per_token = per_token_loss(parse(OBJECTIVE), Loss())
    if what == "chunked":
        chunked_loss(per_token, hidden, Head(weight), labels, teacher).backward()  # type: ignore[no-untyped-call]
    elif what == "unchunked":
        plain_loss(per_token, hidden, Head(weight), labels, teacher).backward()  # type: ignore[no-untyped-call]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(case: str, who: str, value: float, ratio: float | None) -> dict[str, object]:
    """One tidy row."""
    machine = hardware()
    return {
        "benchmark": "memory",
        "case": case,
        "who": who,
        "metric": "peak_extra_memory",
        "value": round(value, 1),
        "unit": "MB",
        "ratio": "" if ratio is None else round(ratio, 2),
        "hardware": machine["gpu"] or f"{machine['cores']} x {machine['processor']}",
        "versions": f"torch {importlib.metadata.version('torch')}",
        "commit": str(commit()["commit"])[:12],
        "date": datetime.now(UTC).date().isoformat(),
    }


def append(rows: list[dict[str, object]]) -> None:
    """Adds rows to the one file of all benchmarks."""
    PERF.parent.mkdir(exist_ok=True)
    new = not PERF.exists()
    with PERF.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
