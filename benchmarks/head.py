"""The head alone: `head`, the time of value and gradients, and `memory`, what they take.

docs/speed.md says what is compared.
"""

import itertools
import resource
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import OURS, Report, in_process, in_turn, seconds
from benchmarks.peers import liger_loss
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, BenchShape, products
from kdbench.config.schema import Architecture, Loss
from kdbench.head.chunked import (
    PerToken,
    Teacher,
    block_size,
    chunked_loss,
    per_token_loss,
    plain_loss,
)
from kdbench.models.model import Head, mixed_precision, pick_device
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
    smoke = report.smoke
    for shape in (TINY,) if smoke else (DOLLY, EMBEDDED):
        sides = Sides(shape)
        for name in SMOKE if smoke else (*OBJECTIVES, "amid[divergence=kl]"):
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
            with mixed_precision(self.hidden.device):
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
    hidden = sides.hidden.detach()
    calls: dict[str, Callable[[], object]] = {
        OURS: sides.chunked(per_token, teacher),
        "floor": partial(products(sides.head, len(hidden), teacher), hidden),
    }
    liger = liger_loss(variant.name, sides.hidden, sides.head, sides.labels, sides.teacher)
    if liger is not None:
        calls["liger"] = sides.backward(liger)
    first = []
    if variant.objective.kind != "stateful":  # as in a run
        torch.compiler.reset()
        calls["kdbench-compile"] = sides.chunked(torch.compile(per_token), teacher)
        first.append(seconds(calls["kdbench-compile"]))
    report.compare(case, in_turn(calls, report.repeats))
    report.compare(case, {"kdbench-compile": first}, "first_call")
    report.compare(case, {OURS: [count_passes(sides, per_token, teacher)]}, "passes", "[N, V]")


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
    sizes = [(997, 64)] if report.smoke else itertools.product(VOCABULARIES, TOKENS)
    for vocabulary, tokens in sizes:
        case = f"{OBJECTIVE} V={vocabulary} tokens={tokens}"
        if not report.wants(case):
            continue
        samples: dict[str, list[float]] = {OURS: [], "unchunked": []}
        for _ in range(report.repeats):
            base = _peak(report, vocabulary, tokens, "inputs")
            for who, found in samples.items():
                if who == OURS or _fits(vocabulary, tokens):
                    peak = _peak(report, vocabulary, tokens, who)
                    found += [peak - base] if peak and base else []
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
        return in_process(_pass, vocabulary, tokens, what, report.threads)
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
    bytes = 0

    def __init__(self, *shape: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape = shape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in LEFT_OUT:
            # In place, a tensor stands on both sides: it is read and written.
            for leaf in tree_leaves((args, kwargs, result)):
                if isinstance(leaf, Tensor) and leaf.shape[-2:] == self.shape:
                    self.bytes += leaf.element_size() * _held(leaf)
        return result


def passes(call: Callable[[], object], tokens: int, vocabulary: int) -> float:
    """Reads and writes of float32 tensors [tokens, V] in a call, matrix products left out.

    A kernel that reads its input several times, as log_softmax does, counts once.
    """
    with _Counter(tokens, vocabulary) as counter:
        call()
    return counter.bytes / (4 * tokens * vocabulary)


def _held(tensor: Tensor) -> int:
    """Elements in memory: of an expanded tensor only what it was expanded from."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return torch.Size([size for size, stride in strides if stride]).numel()
