"""The properties of an objective: each a function that returns what is wrong, or nothing.

The values are one a token, its own, the same every time; the gradient is that of the value; ids of
probability 0 give +inf exactly where it is declared, and never NaN.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdbench.authoring.cases import (
    IDS,
    TOKENS,
    Case,
    difference,
    ordinary,
    values,
    values_and_gradient,
    zero_cases,
)
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant

STEP = 1e-5  # of the central differences


def shape_and_dtype(variant: Variant) -> str:
    """[N] in the dtype of the inputs, finite on ordinary distributions."""
    for dtype in (torch.float64, torch.float32):
        found = values(variant, ordinary(dtype))
        if found.shape != (TOKENS,):
            return f"the shape is {list(found.shape)} for {TOKENS} tokens, not [{TOKENS}]"
        if found.dtype != dtype:
            return f"{found.dtype} comes out where {dtype} goes in"
        if not found.isfinite().all():
            return f"{found.tolist()} on ordinary distributions in {dtype}"
    return ""


def takes_no_tokens(variant: Variant) -> str:
    """[0, V] gives [0], and a gradient [0, V]: a micro-batch whose mask is empty."""
    found, gradient = values_and_gradient(variant, ordinary(torch.float32).rows(slice(0)))
    if found.shape == (0,) and gradient.shape == (0, IDS):
        return ""
    return (
        f"values {list(found.shape)} and gradient {list(gradient.shape)} for no tokens of {IDS} "
        f"ids, not [0] and [0, {IDS}]"
    )


def is_a_divergence(variant: Variant) -> str:
    """Above 0 where the distributions differ, 0 where they do not, up to rounding."""
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        case = ordinary(dtype)
        found = values(variant, case)
        if not (found > 0).all():
            return f"{found.tolist()} in {dtype} where the distributions differ"
        close = Case(case.teacher, case.teacher + 1e-3 * case.student, case.labels)
        found = values(variant, close)
        if not (found >= -slack).all():
            return f"{found.tolist()} in {dtype} where the distributions are close"
        equal = Case(case.teacher, case.teacher, case.labels)
        found, gradient = values_and_gradient(variant, equal)
        if not (found.abs() <= slack).all():
            return f"{found.tolist()} in {dtype} where the distributions are equal, not 0"
        if not gradient.isfinite().all():
            return f"gradient {gradient.tolist()} in {dtype} where the distributions are equal"
    return ""


def permutes(variant: Variant) -> str:
    """Ids are names: another order of the vocabulary changes nothing."""
    case = ordinary(torch.float64)
    order = torch.randperm(IDS, generator=torch.Generator().manual_seed(1))
    moved = Case(case.teacher[:, order], case.student[:, order], order.argsort()[case.labels])
    found, gradient = values_and_gradient(variant, case)
    return difference(
        (found, gradient[:, order]), values_and_gradient(variant, moved), "after a permutation"
    )


def is_per_token(variant: Variant) -> str:
    """A token's value is the same alone, in a chunk and in a batch."""
    case = ordinary(torch.float64)
    alone = [values_and_gradient(variant, case.rows(slice(row, row + 1))) for row in range(TOKENS)]
    wanted = torch.cat([found for found, _ in alone]), torch.cat([grad for _, grad in alone])
    return difference(wanted, values_and_gradient(variant, case), "together instead of alone")


def is_deterministic(variant: Variant) -> str:
    """The same bits twice, whatever the random state."""
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(values(variant, ordinary(torch.float32)))
    same = torch.equal(results[0], results[1])
    return "" if same else f"{results[0].tolist()}, then {results[1].tolist()}"


def keeps_inputs(variant: Variant) -> str:
    """Nothing that it is given is changed in place."""
    case = ordinary(torch.float32)
    inputs = {
        "teacher_logp": torch.log_softmax(case.teacher, -1),
        "student_logp": torch.log_softmax(case.student, -1),
        "labels": case.labels.clone(),
    }
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    variant(*inputs.values())
    changed = [name for name, tensor in inputs.items() if not torch.equal(tensor, before[name])]
    return f"changes {', '.join(changed)} in place" if changed else ""


def resumes(variant: Variant) -> str:
    """Of a stateful objective: after `load_state_dict` it is where it would have been anyway."""
    uninterrupted, stopped, resumed = (_begin(variant) for _ in range(3))
    losses = (2.0, 1.7, 1.9, 1.1, 0.8, 0.9)
    for step, loss in enumerate(losses):
        if step == len(losses) // 2:
            resumed.load_state_dict(stopped.state_dict())
            stopped = resumed
        for state in (uninterrupted, stopped):
            state.after_step(loss, (step + 1) / len(losses))
    case = ordinary(torch.float64)
    logp = torch.log_softmax(case.teacher, -1), torch.log_softmax(case.student, -1)
    wanted, found = uninterrupted.per_token(*logp), resumed.per_token(*logp)
    if torch.equal(wanted, found):
        return ""
    return f"{found.tolist()} after a resumption, {wanted.tolist()} without one"


def _begin(variant: Variant) -> State:
    state = variant.begin()
    assert state is not None
    return state


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


def ignores_padding(variant: Variant) -> str:
    """Three more ids at -inf in both models change nothing, and get the gradient 0."""
    for dtype in (torch.float64, torch.float32):
        case = ordinary(dtype)
        nothing = case.teacher.new_full((TOKENS, 3), -math.inf)
        padded = Case(
            torch.cat([case.teacher, nothing], -1),
            torch.cat([case.student, nothing], -1),
            case.labels,
        )
        found, gradient = values_and_gradient(variant, case)
        wanted = (found, torch.cat([gradient, torch.zeros_like(nothing)], -1))
        again = values_and_gradient(variant, padded)
        if problem := difference(wanted, again, f"with three ids at -inf in {dtype}"):
            return problem
    return ""


def declared_infinities(variant: Variant) -> str:
    """Never NaN; where something is declared, +inf there and finite elsewhere."""
    declared = variant.infinite_where()
    for dtype in (torch.float64, torch.float32):
        for where, zeros_of, case in zero_cases():
            found, gradient = values_and_gradient(variant, case.to(dtype))
            if not gradient[found.isfinite()].isfinite().all() or found.isnan().any():
                return f"{_numbers(found, gradient)} {where}, in {dtype}"
            if declared is None:
                continue
            if declared & zeros_of and not (found == math.inf).all():
                return f"{found.tolist()} {where}, in {dtype}: declared infinite"
            if not declared & zeros_of and not found.isfinite().all():
                return f"{_numbers(found, gradient)} {where}, in {dtype}: not declared"
    return ""


def _numbers(found: Tensor, gradient: Tensor) -> str:
    return f"values {found.tolist()}, gradient {gradient.tolist()}"
