"""The small tensors that objectives are tried on, and how they are called."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.variants.variant import Variant

TOKENS, IDS = 5, 8
ZERO = 2  # the id that the tests of -inf take away; never a label


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
