"""Ids of probability 0: +inf exactly where declared, never NaN."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kdbench.authoring.cases import (
    TOKENS,
    ZERO,
    Case,
    difference,
    ordinary,
    values_and_gradient,
)
from kdbench.variants.objective import Zero
from kdbench.variants.variant import Variant

OTHER = 1  # the student's zero where the teacher's is at another id; never a label


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


def zero_cases() -> Iterator[tuple[str, frozenset[Zero], Case]]:
    """Where probabilities are 0, whose they are while the other's is not, and such a case."""
    teacher, student = frozenset[Zero](["teacher"]), frozenset[Zero](["student"])
    for where, zeros_of, teachers, students in (
        ("where only the teacher's probability is 0", teacher, [ZERO], []),
        ("where only the student's probability is 0", student, [], [ZERO]),
        ("where both probabilities are 0", frozenset[Zero](), [ZERO], [ZERO]),
        ("where each has a zero of its own", teacher | student, [ZERO], [OTHER]),
    ):
        case = ordinary(torch.float64)
        case.teacher[:, teachers] = -math.inf
        case.student[:, students] = -math.inf
        yield where, zeros_of, case
    yield "where the teacher is one-hot", teacher, one_hot_teacher()


def one_hot_teacher() -> Case:
    """A teacher that is certain: of the label in every other token, else of another id."""
    case = ordinary(torch.float64)
    sure = torch.where(torch.arange(TOKENS) % 2 == 0, case.labels, OTHER)
    case.teacher.fill_(-math.inf)
    case.teacher[range(TOKENS), sure] = 0.0
    return case


def _numbers(found: Tensor, gradient: Tensor) -> str:
    return f"values {found.tolist()}, gradient {gradient.tolist()}"
