"""What the tests of the objectives share: calling one from logits, and a registry to spoil."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from kdbench.variants.objective import ALIASES, METHODS, NAMES, OBJECTIVES, PRESETS
from kdbench.variants.variant import Variant, load_objectives, parse
from tests import decimal_oracle as oracle

# The tensors are tiny; on a busy machine a second thread waits for its turn at every operation.
torch.set_num_threads(1)

seeds = st.integers(0, 2**31)
SOME = settings(max_examples=25, deadline=None)

FORMULA_IN_FLOAT32 = {"rtol": 2e-4, "atol": 4e-6}
Formula = Callable[[oracle.Distribution, oracle.Distribution], oracle.Decimal]


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


def per_token(expression: str, teacher: Tensor, student: Tensor) -> Tensor:
    """Values of a variant from logits."""
    return parse(expression)(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))


def exact(formula: Formula, teacher: Tensor, student: Tensor) -> Tensor:
    """A formula's values from logits, computed in 40 digits."""
    rows = zip(teacher.tolist(), student.tolist(), strict=True)
    values = [float(formula(oracle.softmax(p), oracle.softmax(q))) for p, q in rows]
    return torch.tensor(values, dtype=torch.float64)


def assert_same(found: object, wanted: object, name: str = "", **tolerances: float) -> None:
    """`assert_close`, whose message begins with a variant's name."""
    torch.testing.assert_close(found, wanted, msg=lambda text: f"{name}: {text}", **tolerances)


@contextmanager
def spoiled_registry() -> Iterator[None]:
    """What is registered inside is forgotten afterwards."""
    load_objectives()
    aliases = dict(ALIASES)
    with ExitStack() as stack:
        for registry in (OBJECTIVES, PRESETS, METHODS, NAMES):
            stack.enter_context(registry.restored())
        try:
            yield
        finally:
            ALIASES.clear()
            ALIASES.update(aliases)
