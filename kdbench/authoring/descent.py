"""What an objective does to a student that is too small: one example, the same for all.

The vocabulary is 41 ids at the places -4 ... 4. The teacher has two modes; the student is a single
discretised Gaussian, so it must choose between covering both and seeking one.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kdbench.variants.objective import State
from kdbench.variants.variant import Variant

PLACES = torch.linspace(-4.0, 4.0, 41, dtype=torch.float64)
STARTS = ((-1.6, 0.5), (0.0, 1.5), (1.6, 0.5))
"""(mean, width) from which descent begins: on each mode, and wide in the middle."""

STEPS = 300
RATE = 0.1  # of Adam, falling linearly to 0


@dataclass(frozen=True)
class End:
    """Where descent ends: the parameters of the Gaussian, in units of the places."""

    mean: float
    width: float

    def logp(self) -> Tensor:
        """The student's log-probabilities, [41]."""
        return gaussian(self.mean, self.width)


def teacher() -> Tensor:
    """Log-probabilities [41]: 60 % around -1.6, 39 % around 1.6, 1 % spread over all ids."""
    left, right = gaussian(-1.6, 0.5).exp(), gaussian(1.6, 0.5).exp()
    return (0.6 * left + 0.39 * right + 0.01 / len(PLACES)).log()


def student() -> Tensor:
    """Log-probabilities [41] of the student whose gradient is shown: beside the larger mode."""
    return gaussian(-0.8, 0.7)


def gaussian(mean: float, width: float) -> Tensor:
    """Log-probabilities [41] of a discretised Gaussian."""
    return _gaussian(*torch.tensor([[[mean]], [[width]]], dtype=torch.float64))[0]


def push(variant: Variant) -> Tensor:
    """What gradient descent adds to each logit of `student()`: minus the gradient, [41]."""
    logits = student().requires_grad_()
    values = _expected(variant, None, torch.log_softmax(logits, -1).unsqueeze(0))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return -gradient


@cache
def end(variant: Variant) -> End:
    """The Gaussian that descent ends with: of those reached from `STARTS`, the one of least value.

    A stateful objective is told of every step, as in training.
    """
    starts = torch.tensor(STARTS, dtype=torch.float64)
    mean = starts[:, :1].clone().requires_grad_()
    log_width = starts[:, 1:].log().requires_grad_()
    adam = torch.optim.Adam([mean, log_width], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, STEPS)
    state = variant.begin()
    for step in range(STEPS):
        adam.zero_grad()
        values = _expected(variant, state, _gaussian(mean, log_width.exp()))
        values.sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
        if state is not None:
            state.after_step(float(values.mean().detach()), (step + 1) / STEPS)
    with torch.no_grad():
        widths = log_width.exp()
        best = int(_expected(variant, state, _gaussian(mean, widths)).argmin())
    return End(mean[best].item(), widths[best].item())


def _gaussian(mean: Tensor, width: Tensor) -> Tensor:
    """Log-probabilities [N, 41] of students with means and widths [N, 1]."""
    return torch.log_softmax(-((PLACES - mean) ** 2) / (2.0 * width**2), dim=-1)


def _expected(variant: Variant, state: State | None, student_logp: Tensor) -> Tensor:
    """Values [N] of students [N, 41]; where labels are needed, the mean over the teacher's."""
    teacher_logp = teacher().expand_as(student_logp)
    if state is not None:
        return state.per_token(teacher_logp, student_logp)
    if variant.objective.kind != "labelled":
        return variant(teacher_logp, student_logp)
    labels = torch.arange(len(PLACES)).repeat(len(student_logp))
    rows = [logp.repeat_interleave(len(PLACES), 0) for logp in (teacher_logp, student_logp)]
    values = variant(rows[0], rows[1], labels).view_as(student_logp)
    return (teacher_logp.exp() * values).sum(-1)
