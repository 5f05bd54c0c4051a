"""What the tests of the objectives share: calling one from logits, and a registry to spoil."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kdbench.variants.objective import ALIASES, METHODS, NAMES, OBJECTIVES, PRESETS
from kdbench.variants.variant import Variant, load_objectives

# The tensors are tiny; on a busy machine a second thread waits for its turn at every operation.
torch.set_num_threads(1)


def logits(seed: int, tokens: int = 4, ids: int = 9, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits of a teacher and a student, [tokens, ids], in float64."""
    generator = torch.Generator().manual_seed(seed)
    teacher, student = scale * torch.randn(2, tokens, ids, generator=generator, dtype=torch.float64)
    return teacher, student


def value_and_gradient(
    variant: Variant, teacher: Tensor, student: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Per-token values and the gradient of their sum with respect to the student's logits."""
    student = student.clone().requires_grad_()
    values = variant(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1), labels)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    return values.detach(), gradient


@contextmanager
def spoiled_registry() -> Iterator[None]:
    """What is registered inside is forgotten afterwards."""
    load_objectives()
    tables = [ALIASES] + [
        table
        for registry in (OBJECTIVES, PRESETS, METHODS, NAMES)
        for table in (registry._items, registry._defined_at)
    ]
    kept = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, content in zip(tables, kept, strict=True):
            table.clear()
            table.update(content)
