"""What every objective is held to, whoever wrote it: `check(variant)` tries it on small tensors.

Each property is a function that returns what is wrong, or nothing. The loop and the chunked head
rely on these properties; none of them says whether an objective is a good idea.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdbench.objective import Variant

TOKENS, IDS = 5, 8
ZERO = 2  # the id that the tests of -inf take away; never a label
STEP = 1e-5  # of the central differences


@dataclass(frozen=True)
class Finding:
    """Whether a variant has a property, and the failing numbers where it has not."""

    property: str
    ok: bool
    detail: str


def check(variant: Variant) -> list[Finding]:
    """Holds a variant to every property that the harness relies on.

    Args:
        variant: an objective with its parameters, of kind `divergence` or `labelled`.

    Returns:
        One finding a property, the same ones for every objective of a kind.
    """
    return [_find(name, test, variant) for name, test in _properties(variant).items()]


@dataclass(frozen=True)
class _Case:
    """Logits [N, V] of both models and the labels [N]."""

    teacher: Tensor
    student: Tensor
    labels: Tensor

    def rows(self, rows: slice) -> "_Case":
        return _Case(self.teacher[rows], self.student[rows], self.labels[rows])


def _properties(variant: Variant) -> dict[str, Callable[[Variant], str]]:
    divergence_only: dict[str, Callable[[Variant], str]] = {
        "is positive, and zero where student and teacher agree": _is_a_divergence
    }
    return {
        "returns one value per token in the dtype of its inputs": _shape_and_dtype,
        **(divergence_only if variant.objective.kind == "divergence" else {}),
        "has a finite gradient that sums to zero over the vocabulary": _gradient_sums_to_zero,
        "has the gradient of its value": _agrees_with_differences,
        "lowers its value under gradient descent": _descends,
        "does not depend on the order of the vocabulary": _permutes,
        "ignores ids that neither model can say": _ignores_padding,
        "is infinite exactly where it declares to be, and never NaN": _declared_infinities,
        "treats tokens independently": _is_per_token,
        "is deterministic": _is_deterministic,
        "leaves its inputs as they are": _keeps_inputs,
    }


def _find(name: str, test: Callable[[Variant], str], variant: Variant) -> Finding:
    try:
        problem = test(variant)
    except Exception as error:  # an objective's author may raise anything
        problem = f"raised {type(error).__name__}: {error}"
    return Finding(name, not problem, problem)


def _shape_and_dtype(variant: Variant) -> str:
    for dtype in (torch.float64, torch.float32):
        values = _values(variant, _case(dtype))
        if values.shape != (TOKENS,):
            return f"the shape is {list(values.shape)} for {TOKENS} tokens, not [{TOKENS}]"
        if values.dtype != dtype:
            return f"{values.dtype} comes out where {dtype} goes in"
        if not values.isfinite().all():
            return f"{values.tolist()} on ordinary distributions in {dtype}"
    return ""


def _is_a_divergence(variant: Variant) -> str:
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        case = _case(dtype)
        values = _values(variant, case)
        if not (values > 0).all():
            return f"{values.tolist()} in {dtype} where the distributions differ"
        close = _Case(case.teacher, case.teacher + 1e-3 * case.student, case.labels)
        values = _values(variant, close)
        if not (values >= -slack).all():
            return f"{values.tolist()} in {dtype} where the distributions are close"
        values, gradient = _values_and_gradient(
            variant, _Case(case.teacher, case.teacher, case.labels)
        )
        if not (values.abs() <= slack).all():
            return f"{values.tolist()} in {dtype} where the distributions are equal, not 0"
        if not gradient.isfinite().all():
            return f"gradient {gradient.tolist()} in {dtype} where the distributions are equal"
    return ""


def _gradient_sums_to_zero(variant: Variant) -> str:
    values, gradient = _values_and_gradient(variant, _case(torch.float64))
    size = gradient.abs().sum(-1)
    if not gradient.isfinite().all():
        return f"the gradient is {gradient.tolist()}"
    if not (size > 0).all():
        return f"the gradient is 0 where the value is {values.tolist()}"
    total = gradient.sum(-1)
    return "" if (total.abs() <= 1e-9 * size).all() else f"sums of the gradient: {total.tolist()}"


def _agrees_with_differences(variant: Variant) -> str:
    """Central differences, with what the objective detaches held at its unperturbed value."""
    case = _case(torch.float64)
    detached = _HeldDetach()
    with detached:
        values, gradient = _values_and_gradient(variant, case)
    columns = []
    for step in STEP * torch.eye(IDS, dtype=torch.float64):
        with detached.replay():
            above = _values(variant, _Case(case.teacher, case.student + step, case.labels))
        with detached.replay():
            below = _values(variant, _Case(case.teacher, case.student - step, case.labels))
        columns.append((above - below) / (2 * STEP))
    differences = torch.stack(columns, -1)
    scale = gradient.abs().amax(-1, keepdim=True)
    error = (gradient - differences).abs()
    if (error <= 1e-5 * scale + 1e-9 * values.abs().unsqueeze(-1)).all():
        return ""
    token, index = divmod(int(error.argmax()), IDS)
    return (
        f"token {token}, id {index}: gradient {gradient[token, index]:.9g}, "
        f"central differences {differences[token, index]:.9g}"
    )


def _descends(variant: Variant) -> str:
    case = _case(torch.float64)
    student = case.student.clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.03)
    before = _values(variant, case)
    for _ in range(30):
        optimizer.zero_grad()
        _values(variant, _Case(case.teacher, student, case.labels)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = _values(variant, _Case(case.teacher, student.detach(), case.labels))
    return "" if (after < before).all() else f"from {before.tolist()} to {after.tolist()}"


def _permutes(variant: Variant) -> str:
    case = _case(torch.float64)
    order = torch.randperm(IDS, generator=torch.Generator().manual_seed(1))
    moved = _Case(case.teacher[:, order], case.student[:, order], order.argsort()[case.labels])
    values, gradient = _values_and_gradient(variant, case)
    return _difference(
        (values, gradient[:, order]), _values_and_gradient(variant, moved), "after a permutation"
    )


def _ignores_padding(variant: Variant) -> str:
    for dtype in (torch.float64, torch.float32):
        case = _case(dtype)
        nothing = case.teacher.new_full((TOKENS, 3), -math.inf)
        padded = _Case(
            torch.cat([case.teacher, nothing], -1),
            torch.cat([case.student, nothing], -1),
            case.labels,
        )
        values, gradient = _values_and_gradient(variant, case)
        wanted = (values, torch.cat([gradient, torch.zeros_like(nothing)], -1))
        found = _values_and_gradient(variant, padded)
        if problem := _difference(wanted, found, f"with three ids at -inf in {dtype}"):
            return problem
    return ""


def _declared_infinities(variant: Variant) -> str:
    declared = variant.infinite_where()
    for dtype in (torch.float64, torch.float32):
        for zero_of in ("teacher", "student"):
            values, gradient = _values_and_gradient(variant, _without(zero_of, dtype))
            where = f"where only the {zero_of}'s probability is 0, in {dtype}"
            if values.isnan().any() or gradient[values.isfinite()].isnan().any():
                return f"values {values.tolist()}, gradient {gradient.tolist()} {where}"
            if declared is None:
                continue
            if zero_of in declared and not (values == math.inf).all():
                return f"{values.tolist()} {where}: declared infinite"
            if (
                zero_of not in declared
                and not (values.isfinite() & gradient.isfinite().all(-1)).all()
            ):
                return (
                    f"values {values.tolist()}, gradient {gradient.tolist()} {where}: not declared"
                )
    return ""


def _is_per_token(variant: Variant) -> str:
    case = _case(torch.float64)
    alone = [_values_and_gradient(variant, case.rows(slice(row, row + 1))) for row in range(TOKENS)]
    wanted = torch.cat([values for values, _ in alone]), torch.cat([grad for _, grad in alone])
    return _difference(wanted, _values_and_gradient(variant, case), "together instead of alone")


def _is_deterministic(variant: Variant) -> str:
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(_values(variant, _case(torch.float32)))
    same = torch.equal(results[0], results[1])
    return "" if same else f"{results[0].tolist()}, then {results[1].tolist()}"


def _keeps_inputs(variant: Variant) -> str:
    case = _case(torch.float32)
    inputs = {
        "teacher_logp": torch.log_softmax(case.teacher, -1),
        "student_logp": torch.log_softmax(case.student, -1),
        "labels": case.labels.clone(),
    }
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    variant(*inputs.values())
    changed = [name for name, tensor in inputs.items() if not torch.equal(tensor, before[name])]
    return f"changes {', '.join(changed)} in place" if changed else ""


def _case(dtype: torch.dtype) -> _Case:
    """Logits from nearly flat to sharp, the student a little sharper than the teacher."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 3.0, TOKENS, dtype=torch.float64).unsqueeze(-1)
    teacher, student = torch.randn(2, TOKENS, IDS, generator=generator, dtype=torch.float64)
    labels = (ZERO + 1 + torch.arange(TOKENS) % (IDS - 1)) % IDS
    return _Case((scale * teacher).to(dtype), (1.2 * scale * student).to(dtype), labels)


def _without(zero_of: str, dtype: torch.dtype) -> _Case:
    case = _case(dtype)
    logits = case.teacher if zero_of == "teacher" else case.student
    logits[:, ZERO] = -math.inf
    return case


def _values(variant: Variant, case: _Case) -> Tensor:
    student = torch.log_softmax(case.student, -1)
    uses_teacher = variant.objective.uses_teacher
    teacher = torch.log_softmax(case.teacher, -1) if uses_teacher else student.detach()
    return variant(teacher, student, case.labels)


def _values_and_gradient(variant: Variant, case: _Case) -> tuple[Tensor, Tensor]:
    """Values [N] and the gradient [N, V] of their sum with respect to the student's logits."""
    student = case.student.clone().requires_grad_()
    values = _values(variant, _Case(case.teacher, student, case.labels))
    (gradient,) = torch.autograd.grad(values.sum(), student)
    return values.detach(), gradient


def _difference(
    wanted: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], circumstance: str
) -> str:
    for what, left, right in zip(("values", "gradient"), wanted, found, strict=True):
        tolerance = 1e-10 if left.dtype == torch.float64 else 1e-5
        size = left.abs().max()
        if left.shape != right.shape or not ((left - right).abs() <= tolerance * size).all():
            return f"{what} {right.tolist()} {circumstance}, {left.tolist()} otherwise"
    return ""


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
