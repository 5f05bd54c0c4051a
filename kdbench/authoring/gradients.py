"""What an objective's gradient with respect to the student's logits is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdbench.authoring.cases import IDS, Case, ordinary, values, values_and_gradient
from kdbench.variants.variant import Variant

STEP = 1e-5  # of the central differences


def sums_to_zero(variant: Variant) -> str:
    """Finite, not 0 everywhere, and blind to a shift of all logits."""
    found, gradient = values_and_gradient(variant, ordinary(torch.float64))
    size = gradient.abs().sum(-1)
    if not gradient.isfinite().all():
        return f"the gradient is {gradient.tolist()}"
    if not (size > 0).all():
        return f"the gradient is 0 where the value is {found.tolist()}"
    total = gradient.sum(-1)
    return "" if (total.abs() <= 1e-9 * size).all() else f"sums of the gradient: {total.tolist()}"


def agrees_with_differences(variant: Variant) -> str:
    """Central differences, with what the objective detaches held at its unperturbed value."""
    case = ordinary(torch.float64)
    detached = _HeldDetach()
    with detached:
        found, gradient = values_and_gradient(variant, case)
    columns = []
    for step in STEP * torch.eye(IDS, dtype=torch.float64):
        with detached.replay():
            above = values(variant, Case(case.teacher, case.student + step, case.labels))
        with detached.replay():
            below = values(variant, Case(case.teacher, case.student - step, case.labels))
        columns.append((above - below) / (2 * STEP))
    differences = torch.stack(columns, -1)
    scale = gradient.abs().amax(-1, keepdim=True)
    error = (gradient - differences).abs()
    if (error <= 1e-5 * scale + 1e-9 * found.abs().unsqueeze(-1)).all():
        return ""
    token, index = divmod(int(error.argmax()), IDS)
    return (
        f"token {token}, id {index}: gradient {gradient[token, index]:.9g}, "
        f"central differences {differences[token, index]:.9g}"
    )


def descends(variant: Variant) -> str:
    """Adam on free logits ends lower than it began, for every token.

    Most values fall from the first step on. Where a paper's detached weights follow the student
    the value may rise at first, so there are some hundred steps.
    """
    case = ordinary(torch.float64)
    student = case.student.clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.03)
    before = after = values(variant, case)
    for _ in range(10):
        for _ in range(30):
            optimizer.zero_grad()
            values(variant, Case(case.teacher, student, case.labels)).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        after = values(variant, Case(case.teacher, student.detach(), case.labels))
        if (after < before).all():
            return ""
    return f"from {before.tolist()} to {after.tolist()}"


class _HeldDetach(TorchFunctionMode):
    """Records what `Tensor.detach` returns, and in a replay returns the same again.

    So a paper's stop-gradient is a constant to the central differences, as it is to autograd.
    """

    def __init__(self) -> None:
        super().__init__()
        self._recorded: list[Tensor] = []
        self._again: Iterator[Tensor] | None = None

    def replay(self) -> "_HeldDetach":
        self._again = iter(self._recorded)
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return result
        if self._again is not None:
            return next(self._again)
        self._recorded.append(result)
        return result
