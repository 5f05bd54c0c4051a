"""Peak memory of the head: chunked against all logits at once, each in a process of its own.

The peak resident set of a process that does one forward and backward pass of an objective, less
that of one that only holds the inputs; on a GPU, what torch allocated at most.
"""

import resource
from concurrent.futures.process import BrokenProcessPool

import psutil

from benchmarks.measure import OURS, Report, in_process

REPEATS = 3
WIDTH, TEACHER_WIDTH = 256, 512
VOCABULARIES = (50_257, 151_936)
TOKENS = (1024, 2048, 4096)
OBJECTIVE = "forward-kl"
COPIES = 8
"""Of all logits at once, in float32, that the unchunked pass needs about."""


def measure(report: Report) -> None:
    """Both ways for every vocabulary and number of tokens."""
    smoke = report.options.smoke
    for vocabulary in (997,) if smoke else VOCABULARIES:
        for tokens in (64,) if smoke else TOKENS:
            case = f"{OBJECTIVE} V={vocabulary} tokens={tokens}"
            if not report.wants(case):
                continue
            samples: dict[str, list[float]] = {OURS: [], "unchunked": []}
            for _ in range(report.options.repeats):
                base = _peak(report, vocabulary, tokens, "inputs")
                for who, found in samples.items():
                    if who == "unchunked" and not _fits(vocabulary, tokens):
                        continue
                    if (peak := _peak(report, vocabulary, tokens, who)) and base:
                        found.append(peak - base)
            if not samples["unchunked"]:
                print(f"{case}: all logits at once do not fit into this machine's memory")
            report.compare(case, samples, "peak_extra_memory", "MB")


def _fits(vocabulary: int, tokens: int) -> bool:
    import torch

    available = float(psutil.virtual_memory().available)
    if torch.cuda.is_available():
        available = float(torch.cuda.mem_get_info()[0])
    return COPIES * 4 * vocabulary * tokens + 2e9 < available


def _peak(report: Report, vocabulary: int, tokens: int, what: str) -> float | None:
    """Peak memory in MB of a fresh process that does one pass; None where it was killed."""
    try:
        return in_process(_pass, vocabulary, tokens, what, report.options.threads)
    except BrokenProcessPool:
        return None


def _pass(vocabulary: int, tokens: int, what: str, threads: int) -> float:
    import torch

    from kdbench.config.schema import Loss
    from kdbench.head.chunked import Teacher, chunked_loss, per_token_loss, plain_loss
    from kdbench.models.model import Head, pick_device
    from kdbench.variants.variant import parse

    torch.set_num_threads(threads)
    device, generator = pick_device(), torch.Generator().manual_seed(0)

    def normal(rows: int, width: int, scale: float) -> torch.Tensor:
        return torch.randn(rows, width, generator=generator).mul_(scale).to(device)

    hidden = normal(tokens, WIDTH, 1.0).requires_grad_()
    head = Head(normal(vocabulary, WIDTH, 0.05).requires_grad_())
    other = Head(normal(vocabulary, TEACHER_WIDTH, 0.05))
    teacher = Teacher(normal(tokens, TEACHER_WIDTH, 1.0), other)
    labels = torch.randint(vocabulary, (tokens,), generator=generator).to(device)
    per_token = per_token_loss(parse(OBJECTIVE), Loss())
    if what != "inputs":
        loss = chunked_loss if what == OURS else plain_loss
        loss(per_token, hidden, head, labels, teacher).backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
