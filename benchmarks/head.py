"""The head alone, for every registered objective: value and gradients against matrix products.

* kdbench: `chunked_loss` and its backward pass, eager; kdbench-compile: the per-token function
  through torch.compile, whose first call is reported as `first_call`.
* floor: the matrix products of both heads.
* liger: its fused linear and JSD, where it has the divergence.

`passes` counts how often a tensor [chunk, V] is read or written beside the products, in one chunk.
Element-wise work on such tensors is bound by memory, so its time is passes x bytes / bandwidth.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import OURS, Report, in_turn, seconds
from benchmarks.peers import liger_loss
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, BenchShape, half_precision
from kdbench.config.schema import Loss
from kdbench.head.chunked import (
    PerToken,
    Teacher,
    block_size,
    chunk_size,
    chunked_loss,
    per_token_loss,
)
from kdbench.models.model import Head, pick_device
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import Variant, load_objectives, parse

REPEATS = 5
PACKAGES = ("liger-kernel",)
SMOKE = ("sft", "forward-kl", "taid")
LEFT_OUT = ("aten::mm", "aten::addmm", "aten::detach", "aten::empty_like")
"""Matrix products, and what does not touch the memory: no pass."""


def measure(report: Report) -> None:
    """All objectives with their defaults, and AMiD with KL."""
    load_objectives()
    smoke = report.options.smoke
    names = SMOKE if smoke else (*OBJECTIVES, "amid[divergence=kl]")
    for shape in (TINY,) if smoke else (DOLLY, EMBEDDED):
        sides = _Sides(shape)
        for name in names:
            case = f"{name} V={shape.vocabulary} tokens={len(sides.labels)}"
            if report.wants(case):
                _objective(report, sides, parse(name), case)


class _Sides:
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


def _objective(report: Report, sides: _Sides, variant: Variant, case: str) -> None:
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
    report.value(case, OURS, "passes", _passes(sides, per_token, teacher), "[N, V]")


def _products(sides: _Sides, teacher: Teacher | None) -> Callable[[], None]:
    hidden, weight = sides.hidden.detach(), sides.head.weight.detach()
    size = min(chunk_size(sides.head), len(hidden))
    logits = hidden.new_empty(size, len(weight))
    d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def call() -> None:
        d_weight.zero_()
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            buffer = logits[: part.stop - start]
            if teacher is not None:
                torch.mm(teacher.hidden[part], teacher.head.weight.T, out=buffer)
            torch.mm(hidden[part], weight.T, out=buffer)
            torch.mm(buffer, weight, out=d_hidden[part])
            d_weight.addmm_(buffer.T, hidden[part])

    return call


def _passes(sides: _Sides, per_token: PerToken, teacher: Teacher | None) -> float:
    tokens = min(8, block_size(sides.head), len(sides.labels))  # the objective sees one block

    def call() -> None:
        beside = None if teacher is None else Teacher(teacher.hidden[:tokens], teacher.head)
        hidden, labels = sides.hidden[:tokens].detach(), sides.labels[:tokens]
        loss = chunked_loss(per_token, hidden.requires_grad_(), sides.head, labels, beside)
        loss.backward()  # type: ignore[no-untyped-call]

    return passes(call, tokens, len(sides.head.weight))


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
