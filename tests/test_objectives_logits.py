"""Squared differences of logits: logit-mse and concrete-score."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdbench.variants.variant import parse
from tests.objective_tools import SOME, logits, seeds, value_and_gradient

WORDS = ("student", "teacher", "uniform")
PAIRS = [
    f"concrete-score[first_weight={first},second_weight={second}]"
    for first, second in itertools.product(WORDS, repeat=2)
]


@SOME
@given(seeds)
def test_logit_mse_is_the_mean_squared_error_of_centred_logits(seed: int) -> None:
    teacher, student = logits(seed)
    free = student.clone().requires_grad_()
    p, q = (item - item.mean(-1, keepdim=True) for item in (teacher, free))
    values = torch.nn.functional.mse_loss(q, p, reduction="none").mean(-1)
    (wanted,) = torch.autograd.grad(values.sum(), free)
    found, gradient = value_and_gradient(parse("logit-mse"), teacher, student)
    torch.testing.assert_close(found, values.detach())
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("name", ["logit-mse", *PAIRS])
def test_a_shift_of_all_logits_changes_nothing(name: str) -> None:
    """Also of log-probabilities that do not sum to 1, where the weights do not see it."""
    teacher, student = logits(60)
    found = value_and_gradient(parse(name), teacher, student)
    moved = value_and_gradient(parse(name), teacher + 7.0, student - 11.0)
    for one, other in zip(found, moved, strict=True):
        torch.testing.assert_close(one, other)


def test_logit_mse_takes_logits_as_they_are() -> None:
    teacher, student = logits(61)
    of_logits = parse("logit-mse")(teacher, student)
    torch.testing.assert_close(of_logits, parse("logit-mse")(teacher + 5.0, student - 3.0))
    torch.testing.assert_close(
        of_logits, value_and_gradient(parse("logit-mse"), teacher, student)[0]
    )


@SOME
@given(seeds)
def test_uniform_pairs_are_the_logit_mse(seed: int) -> None:
    teacher, student = logits(seed)
    uniform = parse("concrete-score[first_weight=uniform,second_weight=uniform]")
    found = value_and_gradient(uniform, teacher, student)
    wanted = value_and_gradient(parse("logit-mse"), teacher, student)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@SOME
@given(seeds, st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_concrete_score_has_the_gradient_of_its_theorem(seed: int, first: str, second: str) -> None:
    """CSD, Theorem 3: w2 (d - E_1 d) + w1 (d - E_2 d) for the logits, weights held."""
    teacher, student = logits(seed)
    p, q = teacher.softmax(-1), student.softmax(-1)
    words = {"student": q, "teacher": p, "uniform": torch.full_like(p, 1 / 9)}
    d = student - teacher

    def half(one: Tensor, other: Tensor) -> Tensor:
        return other * (d - (one * d).sum(-1, keepdim=True))

    wanted = half(words[first], words[second]) + half(words[second], words[first])
    name = f"concrete-score[first_weight={first},second_weight={second}]"
    _, gradient = value_and_gradient(parse(name), teacher, student)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-10)


def test_undetached_weights_keep_the_value_and_change_the_gradient() -> None:
    teacher, student = logits(62)
    held, gradient = value_and_gradient(parse("concrete-score"), teacher, student)
    values, slope = value_and_gradient(
        parse("concrete-score[detach_weights=false]"), teacher, student
    )
    free = student.clone().requires_grad_()
    q, d = free.softmax(-1), free - teacher
    variance = (q * d**2).sum(-1) - (q * d).sum(-1) ** 2
    (wanted,) = torch.autograd.grad(variance.sum(), free)
    torch.testing.assert_close(values, held)
    torch.testing.assert_close(slope, wanted)
    assert not torch.allclose(slope, gradient)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["logit-mse", *PAIRS])
def test_ids_that_neither_model_can_say_do_not_count(name: str, dtype: torch.dtype) -> None:
    teacher, student = (item.to(dtype) for item in logits(63))
    wanted = value_and_gradient(parse(name), teacher[:, 4:], student[:, 4:])
    teacher[:, :4] = student[:, :4] = -math.inf
    values, gradient = value_and_gradient(parse(name), teacher, student)
    torch.testing.assert_close(values, wanted[0])
    torch.testing.assert_close(gradient[:, 4:], wanted[1])
    assert (gradient[:, :4] == 0).all()


@pytest.mark.parametrize("zero_of", ["teacher", "student"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_weight_that_vanishes_takes_the_infinite_difference_away(name: str, zero_of: str) -> None:
    variant = parse(name)
    teacher, student = logits(64)
    (teacher if zero_of == "teacher" else student)[:, 2] = -math.inf
    values, gradient = value_and_gradient(variant, teacher, student)
    words = (variant.params["first_weight"], variant.params["second_weight"])
    finite = words == (zero_of, zero_of)
    assert (values.isfinite() if finite else values == math.inf).all()
    assert gradient.isfinite().all() or not finite
