"""Objectives against each other, against closed forms and against the formulas in 40 digits."""

from collections.abc import Callable
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kdbench.objectives.amid import alpha_mixture
from torch import Tensor

from kdbench.variants.variant import parse
from tests import decimal_oracle as oracle
from tests.objective_tools import (
    FORMULA_IN_FLOAT32,
    SOME,
    Formula,
    assert_same,
    exact,
    logits,
    per_token,
    seeds,
    value_and_gradient,
)

weights = st.floats(0.02, 0.98)
ALPHAS = (-50.0, -5.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 1.001, 2.0, 3.0, 5.0, 50.0)


# What an objective is made of, w being any weight: value and gradient are the parts', weighted.
COMBINATIONS = {
    "alpha-beta[alpha=1,beta=0]": "1 forward-kl",
    "alpha-beta[alpha=0,beta=1]": "1 reverse-kl",
    "alpha-beta[alpha=0.5,beta=0.5]": "4 hellinger",
    "amid[alpha=-1,divergence=kl,teacher_weight={w},order=pr]": "1 skew-kl[teacher_weight={w}]",
    "amid[alpha=-1,divergence=kl,teacher_weight={w},order=qr]": (
        "1 skew-reverse-kl[teacher_weight={w}]"
    ),
    "amid[alpha=1,divergence=kl,teacher_weight={w},order=rq,detach_assistant=true]": (
        "1 taid[t_start={w}]"
    ),
    "jsd[beta={w}]": "{w} skew-kl[teacher_weight={w}] {v} skew-reverse-kl[teacher_weight={w}]",
    "jeffreys[forward_weight={w}]": "{w} forward-kl {v} reverse-kl",
    "concrete-score[first_weight=uniform,second_weight=uniform]": "1 logit-mse",
    "amid[alpha=3,divergence=kl,teacher_weight=0,order=pr]": "1 forward-kl",
    "amid[alpha=3,divergence=kl,teacher_weight=0,order=rp]": "1 reverse-kl",
    "amid[alpha=3,divergence=kl,teacher_weight=1,order=qr]": "1 reverse-kl",
    "amid[alpha=3,divergence=kl,teacher_weight=1,order=rq]": "1 forward-kl",
}


@pytest.mark.parametrize("whole", COMBINATIONS)
def test_an_objective_is_made_of_others(whole: str) -> None:
    for seed, w in enumerate((0.02, 0.3, 0.5, 0.98)):
        pair = logits(seed)
        words = COMBINATIONS[whole].format(w=w, v=1 - w).split()
        parts = [
            [float(factor) * item for item in value_and_gradient(parse(name), *pair)]
            for factor, name in zip(words[::2], words[1::2], strict=True)
        ]
        found = value_and_gradient(parse(whole.format(w=w)), *pair)
        for value, summands in zip(found, zip(*parts, strict=True), strict=True):
            assert_same(value, sum(summands), whole, rtol=1e-9, atol=1e-11)


@SOME
@given(seeds, st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 0.95))
def test_arguments_are_exchanged_with_parameters(
    seed: int, a: float, b: float, beta: float
) -> None:
    teacher, student = logits(seed, scale=1.0)
    for name, exchanged in (
        (f"alpha-beta[alpha={a},beta={b}]", f"alpha-beta[alpha={b},beta={a}]"),
        (f"jsd[beta={beta}]", f"jsd[beta={1 - beta}]"),
    ):
        wanted = per_token(exchanged, student, teacher)
        assert_same(per_token(name, teacher, student), wanted, name, rtol=1e-9, atol=1e-12)


@SOME
@given(seeds, st.sampled_from((-50.0, -2.5, -1.0, 0.0, 1.0, 3.0, 50.0)), weights)
def test_amid_with_swapped_weights_and_arguments_is_the_same_assistant(
    seed: int, alpha: float, w: float
) -> None:
    teacher, student = torch.log_softmax(torch.stack(logits(seed)), -1)
    left = alpha_mixture(teacher, student, alpha=alpha, teacher_weight=w)
    right = alpha_mixture(student, teacher, alpha=alpha, teacher_weight=1 - w)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("alpha", "choose"), [(-1e5, torch.maximum), (1e5, torch.minimum)])
def test_the_assistant_tends_to_maximum_and_minimum(
    alpha: float, choose: Callable[[Tensor, Tensor], Tensor]
) -> None:
    teacher, student = logits(4)
    p, q = teacher.softmax(-1), student.softmax(-1)
    limit = choose(p, q)
    found = alpha_mixture(p.log(), q.log(), alpha=alpha, teacher_weight=0.3).exp()
    torch.testing.assert_close(found, limit / limit.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_a_detached_mixture_keeps_the_value_and_changes_the_gradient() -> None:
    teacher, student = logits(6)
    free = student.clone().requires_grad_()
    q, mixture = free.softmax(-1), 0.9 * teacher.softmax(-1) + 0.1 * student.softmax(-1)
    values = (q * (q / mixture).log()).sum(-1)
    wanted = values.detach(), *torch.autograd.grad(values.sum(), free)
    variant = parse("skew-reverse-kl[detach_mixture=true]")
    assert_same(value_and_gradient(variant, teacher, student), wanted)


NEAR_ONE = (0.9, 0.999, 1 - 1e-6, 1 - 1e-12, 1.0, 1 + 1e-12, 1 + 1e-6, 1.001, 1.1)


def _assert_is(name: str, formula: Formula, seed: int, **tolerances: float) -> None:
    """In float64 up to `tolerances`, and near it in float32."""
    teacher, student = logits(seed, tokens=2)
    wanted = exact(formula, teacher, student)
    assert_same(per_token(name, teacher, student), wanted, name, **tolerances)
    in_float32 = per_token(name, teacher.float(), student.float())
    assert_same(in_float32.double(), wanted, name, **FORMULA_IN_FLOAT32)


@pytest.mark.parametrize("alpha", [*ALPHAS, *NEAR_ONE])
def test_amid_is_its_formula_for_any_real_alpha(alpha: float) -> None:
    for order in ("pr", "qr", "rp", "rq"):
        _assert_is(
            f"amid[alpha={alpha!r},divergence=kl,order={order},teacher_weight=0.3]",
            lambda p, q, order=order: oracle.amid(p, q, alpha, 0.3, oracle.kl, order),  # type: ignore[misc]
            7,
            rtol=1e-9,
            atol=1e-11,
        )


LIMITS = [(0.0, 0.7), (0.3, 0.0), (0.5, -0.5), (0.0, 0.0), (0.0, -0.5), (-0.5, 0.0)]
STEPS = (0.0, 1e-1, 5e-2, 1e-2, 1.1e-3, 1e-3, 9e-4, 1e-4, 1e-6, 1e-9)


@pytest.mark.parametrize(("alpha", "beta"), LIMITS)
def test_alpha_beta_is_its_formula_around_its_limits(alpha: float, beta: float) -> None:
    for step in (sign * step for step in STEPS for sign in (1, -1)):
        a, b = alpha + step, beta + step / 3
        _assert_is(
            f"alpha-beta[alpha={a!r},beta={b!r}]",
            lambda p, q, a=a, b=b: oracle.alpha_beta(p, q, a, b),  # type: ignore[misc]
            9,
            rtol=2e-7,
            atol=1e-10,
        )


@SOME
@given(seeds, st.floats(-3, 3), st.floats(-3, 3), st.floats(0.3, 3))
def test_alpha_beta_is_its_formula_everywhere(seed: int, a: float, b: float, scale: float) -> None:
    a, b = round(a, 6), round(b, 6)
    teacher, student = logits(seed, tokens=2, scale=scale)
    wanted = exact(lambda p, q: oracle.alpha_beta(p, q, a, b), teacher, student)
    found = per_token(f"alpha-beta[alpha={a!r},beta={b!r}]", teacher, student)
    torch.testing.assert_close(found, wanted, rtol=2e-7, atol=1e-10)


FORMULAS: dict[str, Formula] = {
    "forward-kl": oracle.kl,
    "reverse-kl": lambda p, q: oracle.kl(q, p),
    "tvd": oracle.tvd,
    "jsd[beta=0.1]": lambda p, q: oracle.jsd(p, q, 0.1),
    "jeffreys[forward_weight=0.3]": lambda p, q: (
        Decimal("0.3") * oracle.kl(p, q) + (1 - Decimal("0.3")) * oracle.kl(q, p)
    ),
    "skew-kl": lambda p, q: oracle.kl(p, oracle.mixed(p, q, 0.1)),
    "skew-reverse-kl": lambda p, q: oracle.kl(q, oracle.mixed(p, q, 0.9)),
    "amid": lambda p, q: oracle.amid(
        p, q, -5.0, 0.1, lambda x, y: oracle.alpha_beta(x, y, 0.2, 0.7), "pr"
    ),
    "amid-released": lambda p, q: oracle.amid(
        p, q, 0.5, 0.5, lambda x, y: oracle.alpha_beta(x, y, 0.2, 0.7), "pr"
    ),
    "hellinger": oracle.hellinger,
    "alphanet": lambda p, q: oracle.alphanet(p, q, 2.0, -1.0),
    "alpha-beta[alpha=1,beta=1]": lambda p, q: (
        sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) / Decimal(2)
    ),
    "alphanet[alpha_max=0.5,alpha_min=-0.3]": lambda p, q: oracle.alphanet(p, q, 0.5, -0.3),
    "adaptive-kl": lambda p, q: oracle.adaptive_kl(p, q, 0.5),
    "adaptive-kl[mu=0.9]": lambda p, q: oracle.adaptive_kl(p, q, 0.9),
    "bdkd": oracle.bdkd,
    "todi": oracle.todi,
    "logit-mse": lambda p, q: oracle.over_pairs(p, q, oracle.uniform(p), oracle.uniform(p)),
    "concrete-score": lambda p, q: oracle.over_pairs(p, q, q, q),
    "concrete-score[first_weight=teacher]": lambda p, q: oracle.over_pairs(p, q, p, q),
    "concrete-score[first_weight=uniform]": lambda p, q: oracle.over_pairs(
        p, q, oracle.uniform(p), q
    ),
    "amid[alpha=3,divergence=tvd,order=rq]": lambda p, q: oracle.amid(
        p, q, 3.0, 0.1, oracle.tvd, "rq"
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_an_objective_is_its_formula(name: str) -> None:
    for scale in (0.1, 1.0, 5.0):
        teacher, student = logits(10, scale=scale)
        wanted = exact(FORMULAS[name], teacher, student)
        torch.testing.assert_close(per_token(name, teacher, student), wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("alpha", [-5.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("w", [0.1, 0.5, 0.8])
def test_theorem_3_2_the_assistant_minimises_the_weighted_alpha_divergences(
    alpha: float, w: float
) -> None:
    """AMiD, Theorem 3.2: r = argmin_r w D_alpha(p, r) + (1 - w) D_alpha(q, r).

    The sum is convex, so at the minimum over the simplex all of its derivatives are equal. Up to
    factors and constants that of D_alpha(a, r) is -(a/r)^s / s, s = (1 - alpha) / 2; at alpha = 1,
    where D_alpha is KL(r, a), it is log(r/a).
    """
    p, q = (item.softmax(-1) for item in logits(12, scale=1.5))
    r = alpha_mixture(p.log(), q.log(), alpha=alpha, teacher_weight=w).exp()
    s = (1 - alpha) / 2
    of_p, of_q = ((r / a).log() if s == 0 else -((a / r) ** s) / s for a in (p, q))
    derivatives = w * of_p + (1 - w) * of_q
    assert_same(derivatives, derivatives[:, :1].expand_as(derivatives), rtol=1e-9, atol=1e-11)


GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "divergence=kl,order=pr": lambda u: u * u.log(),
    "divergence=kl,order=rp": lambda u: -u.log(),
    "divergence=alpha-beta[alpha=0.5,beta=0.5],order=pr": lambda u: 2 * (1 - u.sqrt()) ** 2,
    "divergence=alpha-beta[alpha=2,beta=-1],order=pr": lambda u: 0.5 * (u**2 - 1),
}


@pytest.mark.parametrize("divergence", GENERATORS)
@pytest.mark.parametrize("alpha", [-5.0, -1.0, 0.0, 0.5, 1.0, 1.001, 3.0])
def test_proposition_3_5_is_what_autograd_computes(alpha: float, divergence: str) -> None:
    """AMiD, Proposition 3.5: grad D_f(p, r) = E_r[omega (psi - E_r psi) grad log q].

    D_f(p, r) = E_r f(p/r), psi = f(u) - u f'(u), omega = q's share of the assistant r.
    """
    w, s = 0.3, (1 - alpha) / 2
    teacher, student = logits(13)
    p, q = teacher.softmax(-1), student.softmax(-1)
    powers = w * p**s + (1 - w) * q**s
    r = p**w * q ** (1 - w) if s == 0 else powers ** (1 / s)
    r = r / r.sum(-1, keepdim=True)
    u = (p / r).requires_grad_()
    f = GENERATORS[divergence](u)
    (slope,) = torch.autograd.grad(f.sum(), u)
    psi = f - u * slope
    factor = r * (1 - w) * q**s / powers * (psi - (r * psi).sum(-1, keepdim=True))
    # The gradient of log q(v) with respect to the logits is onehot(v) - q.
    wanted = (r * f).sum(-1).detach(), (factor - q * factor.sum(-1, keepdim=True)).detach()
    variant = parse(f"amid[alpha={alpha},{divergence},teacher_weight={w}]")
    assert_same(value_and_gradient(variant, teacher, student), wanted, rtol=1e-8, atol=1e-12)
