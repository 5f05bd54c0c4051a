"""Counts how often tensors of the size [chunk, V] are read or written: what a kernel costs.

Element-wise work on such tensors is bound by memory, so its time is passes x bytes / bandwidth.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LEFT_OUT = ("aten::mm", "aten::addmm", "aten::detach", "aten::empty_like")
"""Matrix products, and what does not touch the memory."""


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
