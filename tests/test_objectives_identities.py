"""Objectives against each other, against closed forms and against the formulas in 40 digits."""

import itertools
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kdbench.objectives.amid import alpha_mixture
from numpy.typing import NDArray
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

Array = NDArray[np.float64]
weights = st.floats(0.02, 0.98)
ALPHAS = (-50.0, -5.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 1.001, 2.0, 3.0, 5.0, 50.0)


def _same(left: str, right: str, seed: int, factor: float = 1.0) -> None:
    teacher, student = logits(seed)
    found = value_and_gradient(parse(left), teacher, student)
    wanted = value_and_gradient(parse(right), teacher, student)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, factor * other, f"{left}, {right}", rtol=1e-9, atol=1e-11)


@SOME
@given(seeds, weights)
def test_amid_at_minus_one_is_the_skew_divergences(seed: int, w: float) -> None:
    amid = f"amid[alpha=-1,divergence=kl,teacher_weight={w},order="
    _same(f"{amid}pr]", f"skew-kl[teacher_weight={w}]", seed)
    _same(f"{amid}qr]", f"skew-reverse-kl[teacher_weight={w}]", seed)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_amid_with_an_extreme_weight_is_the_plain_kl(alpha: float) -> None:
    amid = f"amid[alpha={alpha},divergence=kl,"
    _same(f"{amid}teacher_weight=0,order=pr]", "forward-kl", 1)
    _same(f"{amid}teacher_weight=0,order=rp]", "reverse-kl", 1)
    _same(f"{amid}teacher_weight=1,order=qr]", "reverse-kl", 1)
    _same(f"{amid}teacher_weight=1,order=rq]", "forward-kl", 1)


@SOME
@given(seeds)
def test_alpha_beta_has_the_kls_at_its_corners(seed: int) -> None:
    _same("alpha-beta[alpha=1,beta=0]", "forward-kl", seed)
    _same("alpha-beta[alpha=0,beta=1]", "reverse-kl", seed)


@SOME
@given(seeds)
def test_alpha_beta_at_one_one_is_half_the_squared_distance(seed: int) -> None:
    teacher, student = logits(seed)
    found = per_token("alpha-beta[alpha=1,beta=1]", teacher, student)
    wanted = 0.5 * (teacher.softmax(-1) - student.softmax(-1)).square().sum(-1)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


@SOME
@given(seeds)
def test_alpha_beta_at_one_half_is_four_times_squared_hellinger(seed: int) -> None:
    teacher, student = logits(seed)
    found = per_token("alpha-beta[alpha=0.5,beta=0.5]", teacher, student)
    roots = teacher.softmax(-1).sqrt() - student.softmax(-1).sqrt()
    torch.testing.assert_close(found, 4 * 0.5 * roots.square().sum(-1), rtol=1e-10, atol=1e-14)
    _same("alpha-beta[alpha=0.5,beta=0.5]", "hellinger", seed, factor=4)


@SOME
@given(seeds, st.floats(-2, 2), st.floats(-2, 2))
def test_alpha_beta_exchanges_its_arguments_with_its_parameters(
    seed: int, a: float, b: float
) -> None:
    teacher, student = logits(seed, scale=1.0)
    left = per_token(f"alpha-beta[alpha={a},beta={b}]", teacher, student)
    right = per_token(f"alpha-beta[alpha={b},beta={a}]", student, teacher)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@SOME
@given(seeds, st.floats(0.05, 0.95))
def test_jsd_exchanges_its_arguments_with_its_weight(seed: int, beta: float) -> None:
    teacher, student = logits(seed)
    left = per_token(f"jsd[beta={beta}]", teacher, student)
    right = per_token(f"jsd[beta={1 - beta}]", student, teacher)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@SOME
@given(seeds, st.floats(0.05, 0.95))
def test_jsd_is_the_two_skews_weighted(seed: int, beta: float) -> None:
    teacher, student = logits(seed)
    found = per_token(f"jsd[beta={beta}]", teacher, student)
    forward = per_token(f"skew-kl[teacher_weight={beta}]", teacher, student)
    reverse = per_token(f"skew-reverse-kl[teacher_weight={beta}]", teacher, student)
    torch.testing.assert_close(found, beta * forward + (1 - beta) * reverse)
    assert (found <= -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)).all()


@SOME
@given(seeds, st.floats(0, 1))
def test_jeffreys_is_the_two_kls_weighted(seed: int, w: float) -> None:
    teacher, student = logits(seed)
    forward = per_token("forward-kl", teacher, student)
    reverse = per_token("reverse-kl", teacher, student)
    found = per_token(f"jeffreys[forward_weight={w}]", teacher, student)
    torch.testing.assert_close(found, w * forward + (1 - w) * reverse)


@SOME
@given(seeds, st.sampled_from((-50.0, -2.5, -1.0, 0.0, 1.0, 3.0, 50.0)), weights)
def test_amid_with_swapped_weights_and_arguments_is_the_same_assistant(
    seed: int, alpha: float, w: float
) -> None:
    teacher, student = torch.log_softmax(torch.stack(logits(seed)), -1)
    left = alpha_mixture(teacher, student, alpha=alpha, teacher_weight=w)
    right = alpha_mixture(student, teacher, alpha=alpha, teacher_weight=1 - w)
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def test_the_assistant_at_three_is_the_harmonic_mixture() -> None:
    teacher, student = logits(3)
    p, q = teacher.softmax(-1), student.softmax(-1)
    harmonic = 1 / (0.3 / p + 0.7 / q)
    found = alpha_mixture(p.log(), q.log(), alpha=3.0, teacher_weight=0.3).exp()
    torch.testing.assert_close(found, harmonic / harmonic.sum(-1, keepdim=True))


@pytest.mark.parametrize(("alpha", "choose"), [(-1e5, torch.maximum), (1e5, torch.minimum)])
def test_the_assistant_tends_to_maximum_and_minimum(
    alpha: float, choose: Callable[[Tensor, Tensor], Tensor]
) -> None:
    teacher, student = logits(4)
    p, q = teacher.softmax(-1), student.softmax(-1)
    limit = choose(p, q)
    found = alpha_mixture(p.log(), q.log(), alpha=alpha, teacher_weight=0.3).exp()
    torch.testing.assert_close(found, limit / limit.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_taid_at_a_fixed_time_is_a_detached_geometric_amid() -> None:
    teacher, student = logits(5)
    t = 0.4
    found = value_and_gradient(
        parse(f"amid[alpha=1,divergence=kl,order=rq,detach_assistant=true,teacher_weight={t}]"),
        teacher,
        student,
    )
    free = student.clone().requires_grad_()
    target = torch.softmax((1 - t) * student + t * teacher, -1)
    values = (target * (target.log() - torch.log_softmax(free, -1))).sum(-1)
    wanted = values.detach(), torch.autograd.grad(values.sum(), free)[0]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_detached_mixture_keeps_the_value_and_changes_the_gradient() -> None:
    teacher, student = logits(6)
    plain, gradient = value_and_gradient(parse("skew-reverse-kl"), teacher, student)
    detached, other = value_and_gradient(
        parse("skew-reverse-kl[detach_mixture=true]"), teacher, student
    )
    free = student.clone().requires_grad_()
    q = torch.softmax(free, -1)
    mixture = 0.9 * teacher.softmax(-1) + 0.1 * student.softmax(-1)
    (wanted,) = torch.autograd.grad((q * (q / mixture).log()).sum(), free)
    torch.testing.assert_close(plain, detached)
    torch.testing.assert_close(other, wanted)
    assert not torch.allclose(gradient, other)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_amid_is_continuous_at_one(dtype: torch.dtype) -> None:
    teacher, student = (item.to(dtype) for item in logits(8))
    at_one, slope_at_one = value_and_gradient(parse("amid[alpha=1]"), teacher, student)
    for step in (1e-3, 1e-6, 1e-9, 1e-12):
        for alpha in (1 - step, 1 + step):
            value, gradient = value_and_gradient(parse(f"amid[alpha={alpha!r}]"), teacher, student)
            tolerance = 5 * step + (1e-12 if dtype == torch.float64 else 4e-6)
            torch.testing.assert_close(value, at_one, rtol=0, atol=tolerance)
            torch.testing.assert_close(gradient, slope_at_one, rtol=0, atol=tolerance)


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


def test_sft_is_the_cross_entropy_of_the_labels() -> None:
    teacher, student = logits(11)
    labels = torch.tensor([0, 3, 8, 3])
    found = parse("sft")(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1), labels)
    wanted = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("alpha", [-5.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 5.0])
def test_theorem_3_2_the_assistant_minimises_the_weighted_alpha_divergences(alpha: float) -> None:
    """AMiD, Theorem 3.2: r = argmin_r w D_alpha(p, r) + (1 - w) D_alpha(q, r)."""
    tokens = zip(*logits(12, scale=1.5), strict=True)
    for w, (p_logits, q_logits) in itertools.product((0.1, 0.5, 0.8), tokens):
        p, q = p_logits.softmax(-1), q_logits.softmax(-1)
        closed = alpha_mixture(p.log(), q.log(), alpha=alpha, teacher_weight=w).exp().numpy()
        minimiser = _newton(p.numpy(), q.numpy(), alpha, w)
        np.testing.assert_allclose(minimiser, closed, rtol=0, atol=1e-8)


def _newton(p: Array, q: Array, alpha: float, w: float) -> Array:
    """Minimises the weighted D_alpha over the simplex, from the uniform distribution.

    Up to factors and constants D_alpha(a, r) has the gradient -a^s r^-s / s with respect to r,
    s = (1 - alpha) / 2; at alpha = 1 it is KL(r, a), with the gradient log(r / a) + 1.
    """
    s = (1 - alpha) / 2

    def slopes(r: Array) -> tuple[Array, Array]:
        if s == 0:
            return w * np.log(r / p) + (1 - w) * np.log(r / q) + 1, 1 / r
        powers = w * (p / r) ** s + (1 - w) * (q / r) ** s
        return -powers / s, powers / r

    r = np.full_like(p, 1 / len(p))
    for _ in range(200):
        gradient, curvature = slopes(r)
        multiplier = -(gradient / curvature).sum() / (1 / curvature).sum()
        step = -(gradient + multiplier) / curvature
        shrinking = step < 0
        room = (-r[shrinking] / step[shrinking]).min() if shrinking.any() else np.inf
        r = r + min(1.0, 0.5 * float(room)) * step
        if np.abs(step).max() < 1e-14:
            break
    return r


GENERATORS: dict[str, tuple[str, str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "KL(p, r)": ("kl", "pr", lambda u: u * u.log(), lambda u: u.log() + 1),
    "KL(r, p)": ("kl", "rp", lambda u: -u.log(), lambda u: -1 / u),
    "4 Hellinger": (
        "alpha-beta[alpha=0.5,beta=0.5]",
        "pr",
        lambda u: 2 * (1 - u.sqrt()) ** 2,
        lambda u: 2 - 2 / u.sqrt(),
    ),
    "alpha-beta (2, -1)": (
        "alpha-beta[alpha=2,beta=-1]",
        "pr",
        lambda u: 0.5 * (u**2 - 1),
        lambda u: u,
    ),
}


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("alpha", [-5.0, -1.0, 0.0, 0.5, 1.0, 1.001, 3.0])
def test_proposition_3_5_is_what_autograd_computes(alpha: float, generator: str) -> None:
    """AMiD, Proposition 3.5: grad D_f(p, r) = E_r[omega (psi - E_r psi) grad log q]."""
    divergence, order, f, slope = GENERATORS[generator]
    w = 0.3
    teacher, student = logits(13)
    name = f"amid[alpha={alpha},divergence={divergence},order={order},teacher_weight={w}]"
    values, gradient = value_and_gradient(parse(name), teacher, student)
    p, q = teacher.softmax(-1), student.softmax(-1)
    s = (1 - alpha) / 2
    powers = w * p**s + (1 - w) * q**s
    r = p**w * q ** (1 - w) if s == 0 else powers ** (1 / s)
    r = r / r.sum(-1, keepdim=True)
    omega = (1 - w) * q**s / powers
    u = p / r
    psi = f(u) - u * slope(u)
    factor = r * omega * (psi - (r * psi).sum(-1, keepdim=True))
    # The gradient of log q(v) with respect to the logits is onehot(v) - q.
    torch.testing.assert_close(
        gradient, factor - q * factor.sum(-1, keepdim=True), rtol=1e-8, atol=1e-12
    )
    torch.testing.assert_close(values, (r * f(u)).sum(-1), rtol=1e-9, atol=1e-12)
