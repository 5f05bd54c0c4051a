"""What mixes forward and reverse KL by comparing the models, and the larger of two divergences."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.variants.variant import parse
from tests.objective_tools import SOME, logits, seeds, value_and_gradient


def _adaptive(p: list[float], q: list[float], mu: float = 0.5) -> Tensor:
    teacher, student = (
        torch.tensor([p], dtype=torch.float64),
        torch.tensor([q], dtype=torch.float64),
    )
    return parse(f"adaptive-kl[mu={mu}]")(teacher.log(), student.log())[0]


def _kls(p: list[float], q: list[float]) -> tuple[Tensor, Tensor]:
    one, other = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    return (one * (one / other).log()).sum(), (other * (other / one).log()).sum()


def test_adaptive_kl_counts_the_id_that_crosses_mu_as_tail() -> None:
    p, q = [0.4, 0.3, 0.2, 0.1], [0.3, 0.1, 0.1, 0.5]
    forward, reverse = _kls(p, q)
    wanted = (0.1 * forward + (0.2 + 0.1 + 0.4) * reverse) / 0.8
    torch.testing.assert_close(_adaptive(p, q), wanted)


def test_adaptive_kl_always_has_the_first_id_in_its_head() -> None:
    p, q = [0.1, 0.9], [0.3, 0.7]
    forward, reverse = _kls(p, q)
    torch.testing.assert_close(_adaptive(p, q), 0.5 * forward + 0.5 * reverse)
    torch.testing.assert_close(_adaptive(p, q, mu=0), 0.5 * forward + 0.5 * reverse)


def test_adaptive_kl_lets_ids_of_equal_probability_in_together() -> None:
    """Only one of the two 0.25 fits below mu, so neither is in the head."""
    p, q = [0.4, 0.25, 0.25, 0.1], [0.3, 0.1, 0.3, 0.3]
    forward, reverse = _kls(p, q)
    wanted = (0.1 * forward + (0.15 + 0.05 + 0.2) * reverse) / 0.5
    torch.testing.assert_close(_adaptive(p, q, mu=0.7), wanted)


def test_adaptive_kl_drops_an_infinite_kl_whose_weight_is_zero() -> None:
    """The models agree on the head, and the student excludes an id of the tail."""
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    values, gradient = value_and_gradient(parse("adaptive-kl"), teacher, student)
    assert values.item() == pytest.approx(0.5 * math.log(2.0))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["adaptive-kl", "adaptive-kl[mu=0.9]", "todi"])
def test_ties_do_not_make_the_order_of_the_vocabulary_matter(name: str) -> None:
    _, student = logits(40, ids=12)
    teacher = torch.tensor([0.0, 1, 1, 2, 1, 0, 2, 2, 3, 3, 1, 0], dtype=torch.float64).log1p()
    teacher = teacher.expand(4, 12)
    values, gradient = value_and_gradient(parse(name), teacher, student)
    for seed in range(5):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        found, moved = value_and_gradient(parse(name), teacher[:, order], student[:, order])
        torch.testing.assert_close(found, values)
        torch.testing.assert_close(moved, gradient[:, order])


def test_adaptive_kl_of_a_flat_teacher_is_the_forward_kl() -> None:
    _, student = logits(41)
    flat = torch.zeros_like(student)
    found = value_and_gradient(parse("adaptive-kl"), flat, student)
    wanted = value_and_gradient(parse("forward-kl"), flat, student)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@SOME
@given(seeds)
def test_the_mixed_kls_lie_between_their_parts(seed: int) -> None:
    teacher, student = (torch.log_softmax(item, -1) for item in logits(seed))
    forward, reverse = parse("forward-kl")(teacher, student), parse("reverse-kl")(teacher, student)
    adaptive, balanced = parse("adaptive-kl")(teacher, student), parse("bdkd")(teacher, student)
    slack = 1e-12 + 1e-12 * (forward + reverse)
    assert (adaptive >= torch.minimum(forward, reverse) - slack).all()
    assert (adaptive <= torch.maximum(forward, reverse) + slack).all()
    assert (balanced >= forward + reverse - slack).all()
    assert (balanced <= 2 * (forward + reverse) + slack).all()


@pytest.mark.parametrize("name", ["adaptive-kl", "bdkd", "todi"])
def test_close_to_the_teacher_the_gradient_is_that_of_the_two_kls(name: str) -> None:
    """At p = q it is 0; on the way there its direction is jeffreys', whatever the weights."""
    teacher, noise = logits(42)
    for step in (0.0, 1e-6):
        _, found = value_and_gradient(parse(name), teacher, teacher + step * noise)
        _, wanted = value_and_gradient(parse("jeffreys"), teacher, teacher + step * noise)
        factor = {"adaptive-kl": 1.0, "bdkd": 3.0, "todi": 1.5}[name]
        torch.testing.assert_close(found, factor * wanted, rtol=1e-4, atol=1e-14)


def test_bdkd_counts_the_kl_from_the_flatter_one_twice() -> None:
    sharp = torch.tensor([[4.0, 0.0, 0.0]], dtype=torch.float64)
    flat = torch.zeros_like(sharp)
    for teacher, student, forward, reverse in ((flat, sharp, 2, 1), (sharp, flat, 1, 2)):
        found = value_and_gradient(parse("bdkd"), teacher, student)
        one = value_and_gradient(parse("forward-kl"), teacher, student)
        other = value_and_gradient(parse("reverse-kl"), teacher, student)
        for part in (0, 1):
            torch.testing.assert_close(found[part], forward * one[part] + reverse * other[part])


def test_bdkd_counts_both_once_where_the_entropies_are_equal() -> None:
    teacher = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    found, _ = value_and_gradient(parse("bdkd"), teacher, teacher.flip(-1))
    wanted, _ = value_and_gradient(parse("jeffreys"), teacher, teacher.flip(-1))
    torch.testing.assert_close(found, 2 * wanted)


@SOME
@given(seeds)
def test_todi_has_the_value_of_jeffreys_and_another_gradient(seed: int) -> None:
    teacher, student = logits(seed)
    found, slope = value_and_gradient(parse("todi"), teacher, student)
    wanted, other = value_and_gradient(parse("jeffreys"), teacher, student)
    torch.testing.assert_close(found, 2 * wanted)
    assert not torch.allclose(slope, 2 * other, rtol=1e-3)


def test_todi_has_the_gradient_of_its_parts_with_constant_weights() -> None:
    teacher, student = logits(43)
    free = student.clone().requires_grad_()
    p, q = teacher.softmax(-1), free.softmax(-1)
    w = p / (p + q.detach())
    values = (w * p * (p / q).log() + (1 - w) * q * (q / p).log()).sum(-1)
    (wanted,) = torch.autograd.grad(values.sum(), free)
    _, found = value_and_gradient(parse("todi"), teacher, student)
    torch.testing.assert_close(found, wanted)


def test_alphanet_takes_the_larger_one_for_each_token() -> None:
    teacher, student = logits(44, tokens=8)
    chosen = set()
    above = value_and_gradient(parse("alpha-beta[alpha=2,beta=-1]"), teacher, student)
    below = value_and_gradient(parse("alpha-beta[alpha=-1,beta=2]"), teacher, student)
    values, gradient = value_and_gradient(parse("alphanet"), teacher, student)
    for token in range(8):
        larger = above if above[0][token] > below[0][token] else below
        chosen.add(larger is above)
        torch.testing.assert_close(values[token], larger[0][token])
        torch.testing.assert_close(gradient[token], larger[1][token])
    assert chosen == {True, False}


def test_alphanet_refuses_bounds_in_the_wrong_order() -> None:
    with pytest.raises(UserError, match=r"alpha_min=1\.0 lies above alpha_max=0\.5"):
        parse("alphanet[alpha_max=0.5,alpha_min=1]")
