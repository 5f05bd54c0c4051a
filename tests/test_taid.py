"""TAID's schedule and its loss."""

import math
from typing import Any

import pytest
import torch

from kdbench.variants.variant import parse
from tests.objective_tools import logits


def begin(**params: Any) -> Any:
    given = ",".join(f"{key}={value}" for key, value in params.items())
    return parse(f"taid[{given}]").begin()


def test_the_schedule_is_algorithm_1() -> None:
    losses = [2.0, 1.5, 1.6, 1.0, 0.9]
    state = begin(t_start=0.4, step_size=0.05)
    times, t, momentum, last = [], 0.4, 0.0, None
    for step, loss in enumerate(losses):
        progress = (step + 1) / 10
        state.after_step(loss, progress)
        if last is not None:
            momentum = 0.99 * momentum + 0.01 * (last - loss) / last
            gain = 0.05 / (1 + math.exp(-momentum)) * (1 - t)
            t = min(1.0, max(0.4 + 0.6 * progress, t + gain))
        last = loss
        times.append(t)
        assert state.t == pytest.approx(t, rel=1e-12)
    assert times[0] == 0.4
    assert times[-1] > 0.4 + 0.6 * 0.2


def test_time_never_falls_behind_the_line_and_ends_at_the_end() -> None:
    state = begin(t_start=0.4, t_end=0.9)
    for step in range(1, 101):
        state.after_step(1.0 + step, step / 100)  # a loss that only grows
        assert step == 1 or state.t >= 0.4 + 0.5 * step / 100 - 1e-12
    assert state.t == 0.9


def test_the_state_goes_on_where_it_was() -> None:
    first, second = begin(), begin()
    for loss in (3.0, 2.0, 2.5):
        first.after_step(loss, 0.1)
    second.load_state_dict(first.state_dict())
    for state in (first, second):
        state.after_step(1.9, 0.2)
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize("t", [0.4, 0.8])
def test_the_loss_is_the_kl_from_the_interpolated_logits(t: float) -> None:
    teacher, student = logits(0)
    student.requires_grad_()
    target = torch.softmax((1 - t) * student.detach() + t * teacher, -1)
    wanted = (target * (target.log() - torch.log_softmax(student, -1))).sum(-1)
    (gradient,) = torch.autograd.grad(wanted.sum(), student)
    values = begin(t_start=t).per_token(
        torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    )
    (found,) = torch.autograd.grad(values.sum(), student)
    torch.testing.assert_close(values, wanted)
    torch.testing.assert_close(found, gradient)


def test_at_the_end_of_time_it_is_forward_kl() -> None:
    state = begin(t_start=0.4)
    state.load_state_dict({"t": 1.0, "average": 0.0, "last_loss": 1.0})
    pair = [torch.log_softmax(part, -1) for part in logits(1)]
    torch.testing.assert_close(state.per_token(*pair), parse("forward-kl")(*pair))


def test_nothing_lies_between_distributions_without_a_common_id() -> None:
    teacher = torch.tensor([[0.0, -math.inf]])
    student = torch.tensor([[-math.inf, 0.0]])
    assert begin().per_token(teacher, student).tolist() == [math.inf]


def test_an_end_before_the_start_is_refused() -> None:
    from kdbench.base.errors import UserError

    with pytest.raises(UserError, match=r"t_end=0.3 lies before t_start=0.4"):
        parse("taid[t_end=0.3]")
