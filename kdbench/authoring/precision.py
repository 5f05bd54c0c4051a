"""float32, in which the loop computes, against the same objective in float64.

Both get the same float32 logits. How near float32 can come depends on the place: where teacher and
student nearly agree a divergence is a small difference of large numbers, and with logits of +-150
one rounding of a log-probability moves a probability by 1e-5. So each token has its own tolerance:

    `ABSOLUTE` + `RELATIVE` times the value, or the gradient's largest entry + what the float64
    result itself changes by when each log-probability x moves by `ROUNDING` (1 + |x|), sixteen
    roundings of float32; for the gradient, whose terms may be as large as the value and cancel,
    also `ROUNDING` times the value.

The last terms are what the logits allow; an objective that loses more does so by its own formula.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kdbench.authoring.cases import (
    TOKENS,
    Case,
    from_log_probabilities,
    ordinary,
    values_and_gradient,
    zero_cases,
)
from kdbench.variants.variant import Variant

ABSOLUTE = 1e-6
"""Nats, and nats per unit of a logit."""

RELATIVE = 1e-4

ROUNDING = 2.0**-20

LARGE = 151_936
"""The vocabulary of Qwen2.5."""

LARGE_ROUNDING = 2.0**-17
"""float32's own log_softmax loses this much when it sums over so many ids."""

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Comparison:
    """The values [N] or the gradient [N, V] of one case in both precisions.

    Errors and tolerances are per token, [N]. Where the value, or an entry of the gradient, is
    beyond float32's largest number the gradient counts as right, and such a value has to be
    infinite.
    """

    what: str
    found: Tensor
    exact: Tensor
    errors: Tensor
    tolerances: Tensor

    @property
    def sizes(self) -> Tensor:
        """The exact value, or its gradient's largest entry, without its sign, [N]."""
        sizes = self.exact.abs()
        return sizes.amax(-1) if sizes.dim() > 1 else sizes

    def problem(self, where: str) -> str:
        """The worst number that is out of tolerance, or nothing."""
        excess = self.errors / self.tolerances
        if (excess <= 1).all():
            return ""
        token = int(excess.argmax())
        one, other, at = self.found[token], self.exact[token], f"token {token}"
        if one.dim():
            index = int((one - other).abs().argmax())
            one, other, at = one[index], other[index], f"{at}, id {index}"
        return (
            f"{self.what} {one:.9g} in float32, {other:.9g} in float64 ({at}, {where}; "
            f"tolerance {self.tolerances[token]:.2g})"
        )


def agrees_with_float64(variant: Variant) -> str:
    """On all small cases, the worst of them first met."""
    problems = (each.problem(name) for name, case in cases() for each in compare(variant, case))
    return next(filter(None, problems), "")


def agrees_at_a_large_vocabulary(variant: Variant) -> str:
    """Also where 151,936 roundings can add up."""
    both = compare(variant, large_case(), LARGE_ROUNDING)
    return next(filter(None, (each.problem(f"{LARGE:,} ids") for each in both)), "")


def cases() -> Iterator[tuple[str, Case]]:
    """What a teacher and a student may look like; labels and zeros apart from each other."""
    base = ordinary(torch.float64)
    teacher, student, labels = base.teacher, base.student, base.labels
    certain = teacher.clone()
    certain[range(TOKENS), (labels + torch.arange(TOKENS) % 2) % teacher.shape[1]] += 150.0
    extreme = 150.0 * teacher.clamp(-1, 1), 150.0 * student.clamp(-1, 1)
    yield "ordinary distributions", base
    yield "sharp distributions", Case(4 * teacher, 4 * student, labels)
    yield "close distributions", Case(teacher, teacher + 1e-3 * student, labels)
    yield "equal distributions", Case(teacher, teacher, labels)
    yield "one teacher logit 150 above the rest", Case(certain, student, labels)
    yield "logits of +-150", Case(*extreme, labels)
    yield "logits rounded to bfloat16", Case(4 * teacher, 4 * student, labels).to(torch.bfloat16)
    for where, _, case in zero_cases():
        yield where.removeprefix("where "), case


@cache
def large_case() -> Case:
    """One token over a real vocabulary: a few likely ids, and a long tail as in Zipf's law."""
    generator = torch.Generator().manual_seed(0)
    rank = 1.0 + torch.randperm(LARGE, generator=generator)
    teacher, student = torch.randn(2, 1, LARGE, generator=generator)
    tail = -1.3 * rank.log()
    return Case(tail + teacher, tail + 0.5 * teacher + 0.5 * student, rank.argmin().unsqueeze(0))


def compare(variant: Variant, case: Case, rounding: float = ROUNDING) -> list[Comparison]:
    """One case, rounded to float32, in both precisions: its values, and its gradient."""
    case = case.to(torch.float32)
    values, gradient = values_and_gradient(variant, case)
    wide = case.to(torch.float64)
    exact, exact_gradient = values_and_gradient(variant, wide)
    moved, gradient_moved = _changes(variant, wide, exact, exact_gradient, rounding)
    if torch.equal(case.teacher, case.student):
        # A kink at p = q has many subgradients, and which one it is hangs on the last bit.
        gradient_moved = 4.0 * gradient_moved.amax().expand_as(gradient_moved)
    largest = exact_gradient.abs().amax(-1)
    # Equal where float32 overflows as it should, and where both are +inf: inf - inf is NaN.
    errors = (values - exact).abs().masked_fill(values == exact.to(torch.float32), 0.0)
    unchecked = (exact.abs() > LARGEST) | (largest.isfinite() & (largest > LARGEST))
    gradient_errors = (gradient - exact_gradient).abs().amax(-1).masked_fill(unchecked, 0.0)
    size = exact.abs().masked_fill(exact.isinf(), 0.0)
    tolerances = ABSOLUTE + RELATIVE * size + moved
    gradient_tolerances = (
        ABSOLUTE + RELATIVE * largest.nan_to_num() + rounding * size + gradient_moved
    )
    return [
        Comparison(what, found, wanted, error.nan_to_num(nan=math.inf, posinf=math.inf), tolerance)
        for what, found, wanted, error, tolerance in (
            ("value", values, exact, errors, tolerances),
            ("gradient", gradient, exact_gradient, gradient_errors, gradient_tolerances),
        )
    ]


def _changes(
    variant: Variant, case: Case, exact: Tensor, exact_gradient: Tensor, rounding: float
) -> tuple[Tensor, Tensor]:
    """How far values and gradient [N] move when all log-probabilities do: up, apart, at random."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.log_softmax(case.teacher, -1)
    values_moved, gradient_moved = torch.zeros_like(exact), torch.zeros_like(exact)
    at_random = (torch.randn(2, *teacher.shape, generator=generator)).sign()
    for teacher_signs, student_signs in ((1.0, 1.0), (1.0, -1.0), at_random):
        free = case.student.clone().requires_grad_()
        student = torch.log_softmax(free, -1)
        values = from_log_probabilities(
            variant,
            teacher + _roundings(teacher, rounding) * teacher_signs,
            student + _roundings(student.detach(), rounding) * student_signs,
            case.labels,
        )
        (gradient,) = torch.autograd.grad(values.sum(), free)
        moved = (values.detach() - exact).abs().nan_to_num(0.0, posinf=0.0)
        values_moved = torch.maximum(values_moved, moved)
        moved = (gradient - exact_gradient).abs().amax(-1).nan_to_num(0.0, posinf=0.0)
        gradient_moved = torch.maximum(gradient_moved, moved)
    return values_moved, gradient_moved


def _roundings(logp: Tensor, rounding: float) -> Tensor:
    return rounding * (1.0 + logp.abs()).masked_fill(logp == -math.inf, 0.0)
