"""The head alone: `head`, the time of value and gradients, and `memory`, what they take.

`head`, for every registered objective, against matrix products:

* kdbench: `chunked_loss` and its backward pass, eager; kdbench-compile: the per-token function
  through torch.compile, whose first call is reported as `first_call`.
* floor: the matrix products of both heads.
* liger: its fused linear and JSD, where it has the divergence.

`passes` counts how often a tensor [chunk, V] is read or written beside the products, in one chunk.
Element-wise work on such tensors is bound by memory, so its time is passes x bytes / bandwidth.

`memory`, chunked against all logits at once: the peak resident set of a process that does one
forward and backward pass of an objective, less that of one that only holds the inputs; on a GPU,
what torch allocated at most.
"""

import resource
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import OURS, Report, in_process, in_turn, seconds
from benchmarks.peers import liger_loss
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, BenchShape, ProductBuffers, half_precision
from kdbench.config.schema import Architecture, Loss
from kdbench.head.chunked import (
    PerToken,
    Teacher,
    block_size,
    chunk_size,
    chunked_loss,
    per_token_loss,
    plain_loss,
)
from kdbench.models.model import Head, pick_device
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import Variant, load_objectives, parse

REPEATS = 5
PACKAGES = ("liger-kernel",)
SMOKE = ("sft", "forward-kl", "taid")
VOCABULARIES, TOKENS = (50_257, 151_936), (1024, 2048, 4096)
"""Of `memory`."""
OBJECTIVE = "forward-kl"
COPIES = 8
"""Of all logits at once, in float32, that the unchunked pass needs about."""
LEFT_OUT = ("aten::mm", "aten::addmm", "aten::detach", "aten::empty_like")
"""Matrix products, and what does not touch the memory: no pass."""


def measure_head(report: Report) -> None:
    """All objectives with their defaults, and AMiD with KL."""
    load_objectives()
    smoke = report.options.smoke
    names = SMOKE if smoke else (*OBJECTIVES, "amid[divergence=kl]")
    for shape in (TINY,) if smoke else (DOLLY, EMBEDDED):
        sides = Sides(shape)
        for name in names:
            case = f"{name} V={shape.vocabulary} tokens={len(sides.labels)}"
            if report.wants(case):
                _objective(report, sides, parse(name), case)


class Sides:
    """Hidden states, heads and labels of one batch."""

    def __init__(self, shape: BenchShape) -> None:
        generator, device = torch.Generator().manual_seed(0), pick_device()
        tokens, vocabulary = sum(shape.responses), shape.vocabulary

        def normal(rows: int, width: int, scale: float) -> Tensor:
            return (torch.randn(rows, width, generator=generator) * scale).to(device)

        width, wide = shape.student.width, shape.teacher.width
        self.hidden = normal(tokens, width, 1.0).requires_grad_()
        self.head = Head(normal(vocabulary, width, shape.student.init_std).requires_grad_())
        self.teacher = Teacher(
            normal(tokens, wide, 1.0), Head(normal(vocabulary, wide, shape.teacher.init_std))
        )
        self.labels = torch.randint(vocabulary, (tokens,), generator=generator).to(device)

    def backward(self, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """Value and gradients, from none."""

        def call() -> None:
            self.hidden.grad = self.head.weight.grad = None
            with half_precision(self.hidden.device):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]

        return call

    def chunked(self, per_token: PerToken, teacher: Teacher | None) -> Callable[[], None]:
        return self.backward(
            lambda: chunked_loss(per_token, self.hidden, self.head, self.labels, teacher)
        )


def _objective(report: Report, sides: Sides, variant: Variant, case: str) -> None:
    teacher = sides.teacher if variant.objective.uses_teacher else None
    per_token = per_token_loss(variant, Loss(), variant.begin())
    calls: dict[str, Callable[[], object]] = {
        OURS: sides.chunked(per_token, teacher),
        "floor": _products(sides, teacher),
    }
    liger = liger_loss(variant.name, sides.hidden, sides.head, sides.labels, sides.teacher)
    if liger is not None:
        calls["liger"] = sides.backward(liger)
    first = None
    if variant.objective.kind != "stateful":  # as in a run
        torch.compiler.reset()
        calls["kdbench-compile"] = sides.chunked(torch.compile(per_token), teacher)
        first = seconds(calls["kdbench-compile"])
    report.compare(case, in_turn(calls, report.options.repeats))
    if first is not None:
        report.value(case, "kdbench-compile", "first_call", first, "s")
    report.value(case, OURS, "passes", count_passes(sides, per_token, teacher), "[N, V]")


def _products(sides: Sides, teacher: Teacher | None) -> Callable[[], None]:
    hidden, weight = sides.hidden.detach(), sides.head.weight.detach()
    buffers = ProductBuffers.of(weight, len(hidden), chunk_size(sides.head))
    other = None if teacher is None else (teacher.hidden, teacher.head.weight)
    return lambda: buffers.fill(hidden, weight, other)


def count_passes(sides: Sides, per_token: PerToken, teacher: Teacher | None) -> float:
    tokens = min(8, block_size(sides.head), len(sides.labels))  # the objective sees one block

    def call() -> None:
        beside = None if teacher is None else Teacher(teacher.hidden[:tokens], teacher.head)
        hidden, labels = sides.hidden[:tokens].detach(), sides.labels[:tokens]
        loss = chunked_loss(per_token, hidden.requires_grad_(), sides.head, labels, beside)
        loss.backward()  # type: ignore[no-untyped-call]

    return passes(call, tokens, len(sides.head.weight))


def measure_memory(report: Report) -> None:
    """Both ways for every vocabulary and number of tokens."""
    smoke = report.options.smoke
    for vocabulary in (997,) if smoke else VOCABULARIES:
        for tokens in (64,) if smoke else TOKENS:
            case = f"{OBJECTIVE} V={vocabulary} tokens={tokens}"
            if report.wants(case):
                _memory(report, case, vocabulary, tokens)


def _memory(report: Report, case: str, vocabulary: int, tokens: int) -> None:
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
    torch.set_num_threads(threads)
    student, teacher = (
        Architecture(width=width, layers=1, heads=1, mlp=1, init_std=0.05) for width in (256, 512)
    )
    sides = Sides(BenchShape(vocabulary, student, teacher, (0,), (tokens,)))
    per_token = per_token_loss(parse(OBJECTIVE), Loss())
    if what != "inputs":
        loss = chunked_loss if what == OURS else plain_loss
        value = loss(per_token, sides.hidden, sides.head, sides.labels, sides.teacher)
        value.backward()  # type: ignore[no-untyped-call]
    if sides.hidden.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, tokens: int, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.bytes = (tokens, vocabulary), 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in LEFT_OUT:
            # In place, a tensor stands on both sides: it is read and written.
            for leaf in tree_leaves((args, kwargs, result)):
                if isinstance(leaf, torch.Tensor) and leaf.shape[-2:] == self.shape:
                    self.bytes += leaf.element_size() * _held(leaf)
        return result


def passes(call: Callable[[], object], tokens: int, vocabulary: int) -> float:
    """Reads and writes of float32 tensors [tokens, V] in a call, matrix products left out.

    A kernel that reads its input several times, as log_softmax does, counts once.
    """
    counter = _Counter(tokens, vocabulary)
    with counter:
        call()
    return counter.bytes / (4 * tokens * vocabulary)


def _held(tensor: torch.Tensor) -> int:
    """Elements in memory: of an expanded tensor only what it was expanded from."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return torch.Size([size for size, stride in strides if stride]).numel()
