"""The small tensors that objectives are tried on, and how they are called."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.variants.objective import Zero
from kdbench.variants.variant import Variant

TOKENS, IDS = 5, 8
ZERO = 2  # the id that the tests of -inf take away; never a label
OTHER = 1  # the student's zero where the teacher's is at another id; never a label


@dataclass(frozen=True)
class Case:
    """Logits [N, V] of both models and the labels [N]."""

    teacher: Tensor
    student: Tensor
    labels: Tensor

    def rows(self, rows: slice) -> "Case":
        """Some of the tokens."""
        return Case(self.teacher[rows], self.student[rows], self.labels[rows])

    def to(self, dtype: torch.dtype) -> "Case":
        """The same logits, rounded to another dtype."""
        return Case(self.teacher.to(dtype), self.student.to(dtype), self.labels)


def ordinary(dtype: torch.dtype) -> Case:
    """Logits from nearly flat to sharp, the student a little sharper than the teacher."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 3.0, TOKENS, dtype=torch.float64).unsqueeze(-1)
    teacher, student = torch.randn(2, TOKENS, IDS, generator=generator, dtype=torch.float64)
    labels = (ZERO + 1 + torch.arange(TOKENS) % (IDS - 1)) % IDS
    return Case((scale * teacher).to(dtype), (1.2 * scale * student).to(dtype), labels)


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


def values(variant: Variant, case: Case) -> Tensor:
    """Per-token values [N]; without its gradient for a student that does not require one."""
    student = torch.log_softmax(case.student, -1)
    return from_log_probabilities(
        variant, torch.log_softmax(case.teacher, -1), student, case.labels
    )


def from_log_probabilities(
    variant: Variant, teacher: Tensor, student: Tensor, labels: Tensor
) -> Tensor:
    """Calls a variant as the loop does: one that uses no teacher is given the student again."""
    return variant(teacher if variant.objective.uses_teacher else student.detach(), student, labels)


def values_and_gradient(variant: Variant, case: Case) -> tuple[Tensor, Tensor]:
    """Values [N] and the gradient [N, V] of their sum with respect to the student's logits."""
    student = case.student.clone().requires_grad_()
    found = values(variant, Case(case.teacher, student, case.labels))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    return found.detach(), gradient


def difference(
    wanted: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], circumstance: str
) -> str:
    """What is wrong where two values and gradients are not the same, up to rounding."""
    for what, left, right in zip(("values", "gradient"), wanted, found, strict=True):
        tolerance = 1e-10 if left.dtype == torch.float64 else 1e-5
        size = left.abs().max()
        if left.shape != right.shape or not ((left - right).abs() <= tolerance * size).all():
            return f"{what} {right.tolist()} {circumstance}, {left.tolist()} otherwise"
    return ""
