"""The alpha-beta divergence (ABKD, arXiv:2505.04560), stable over the whole (alpha, beta) plane."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdbench.api import divergence, number

PLAIN = 0.05
"""From here on the difference quotient is good enough everywhere, and twice as fast."""

NEAR = 0.05
"""Below this a difference quotient loses more to rounding than the mean derivative over the two
points of Gauss to its error (NEAR**4 / 4320 of the value)."""


def _zeros(params: Mapping[str, Any]) -> Sequence[Any]:
    alpha, beta, total = _exponents(params["alpha"], params["beta"])
    teacher, student = alpha <= 0 or total <= 0, beta <= 0 or total <= 0
    return [*(["teacher"] if teacher else []), *(["student"] if student else [])]


@divergence(
    "alpha-beta",
    source="ABKD, arXiv:2505.04560, Eq. 6 (defaults: its GPT-2 runs)",
    group="core",
    infinite_where=_zeros,
    alpha=number(0.2),
    beta=number(0.7),
)
def alpha_beta(teacher_logp: Tensor, student_logp: Tensor, *, alpha: float, beta: float) -> Tensor:
    """-1/(ab) sum [p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)], continued to its limits.

    (1, 0) is forward KL, (0, 1) reverse KL, (1, 1) half the squared distance, (.5, .5) four times
    the squared Hellinger distance.

    With c = a + b, t = log(q/p) and g(y) = (exp(y t) - 1)/y, each term is
    p^c (g(c) - g(b))/(c - b), a divided difference: the limits a = 0, b = 0 and c = 0 are its
    derivatives, and the big terms that cancel at p = q never appear. Where q > p the same form is
    used with p and q exchanged, so that t <= 0 and an exponential overflows only for negative
    exponents; there exp(c log p) and the growth of g are joined before they are taken.
    """
    alpha, beta, total = _exponents(alpha, beta)
    if min(abs(alpha), abs(beta), total) >= PLAIN:
        value: Tensor = _Plain.apply(teacher_logp, student_logp, alpha, beta)  # type: ignore[no-untyped-call]
        return value
    impossible = torch.isneginf(teacher_logp) & torch.isneginf(student_logp)
    p = teacher_logp.masked_fill(impossible, 0.0)
    q = student_logp.masked_fill(impossible, 0.0)
    t = q - p
    p_larger = t <= 0
    p_growth, p_difference = _divided_difference(beta, total, t.clamp(max=0.0))
    q_growth, q_difference = _divided_difference(alpha, total, (-t).clamp(max=0.0))
    growth = torch.where(p_larger, p_growth, q_growth)
    exponent = total * torch.where(p_larger, p, q) + growth
    difference = torch.where(p_larger, p_difference, q_difference)
    # Where one factor is 0 the other may be infinite.
    scale = exponent.masked_fill(difference == 0.0, 0.0).exp()
    return (scale * difference.masked_fill(scale == 0.0, 0.0)).sum(-1)


@divergence("hellinger", source="Hellinger 1909", infinite_where=())
def hellinger(teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
    """1/2 sum (sqrt p - sqrt q)^2, in [0, 1]: the squared Hellinger distance."""
    return 0.5 * ((0.5 * teacher_logp).exp() - (0.5 * student_logp).exp()).square().sum(-1)


def _alphanet_refused(params: Mapping[str, Any]) -> str | None:
    if params["alpha_min"] > params["alpha_max"]:
        return f"alpha_min={params['alpha_min']} lies above alpha_max={params['alpha_max']}"
    return None


@divergence(
    "alphanet",
    source="AlphaNet, arXiv:2102.07954",
    check=_alphanet_refused,
    infinite_where=lambda params: sorted(
        {
            zero
            for alpha in (params["alpha_max"], params["alpha_min"])
            for zero in _zeros({"alpha": alpha, "beta": 1.0 - alpha})
        }
    ),
    alpha_max=number(2.0),
    alpha_min=number(-1.0),
)
def alphanet(
    teacher_logp: Tensor, student_logp: Tensor, *, alpha_max: float, alpha_min: float
) -> Tensor:
    """max of D(a, 1 - a) and D(b, 1 - b), D = alpha-beta, a = `alpha_max`, b = `alpha_min`.

    With (2, -1) the larger of (sum p^2/q - 1)/2 and (sum q^2/p - 1)/2, which have no bound; the
    released code clips the ratios' powers at 1000.
    """
    above = alpha_beta(teacher_logp, student_logp, alpha=alpha_max, beta=1.0 - alpha_max)
    below = alpha_beta(teacher_logp, student_logp, alpha=alpha_min, beta=1.0 - alpha_min)
    return torch.maximum(above, below)


class _Plain(torch.autograd.Function):
    """No exponent near 0, c above it: the gradient shares its exponentials with the value.

    With L the larger of p and q to the power c, u = -|log(q/p)|, e(y) = (exp(y u) - 1)/y and b the
    exponent of the smaller one, the term is L (e(c) - e(b)) / (c - b). Its derivatives are -L e(b)
    for the logarithm of the larger and L (c e(c) - b e(b)) / (c - b) for that of the smaller.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, alpha: float, beta: float) -> Tensor:
        total = alpha + beta
        # A mask of 0.0 and 1.0: selecting by boolean ones costs more than all the rest on a CPU.
        p_larger = torch.ge(p, q, out=torch.empty_like(p))
        smaller = p_larger * (beta - alpha) + alpha
        larger = torch.maximum(p, q)
        # -inf - -inf: an id that neither can say has u = 0 and L = 0.
        u = (torch.minimum(p, q) - larger).nan_to_num_(nan=0.0, neginf=-math.inf)
        larger.mul_(total)
        exponent = smaller * u
        if min(alpha, beta) < 0.0:
            # exp(exponent) may overflow where its product with L does not.
            grown = (larger + exponent).exp_().mul_(-torch.expm1(-exponent))
        power = larger.exp_()
        by_smaller = torch.expm1(exponent).mul_(power)
        if min(alpha, beta) < 0.0:
            by_smaller = torch.where(exponent > 0.0, grown, by_smaller)
        by_total = torch.expm1(u.mul_(total)).mul_(power)
        rest = total - smaller
        d_smaller = (by_total - by_smaller).div_(rest)
        by_smaller.div_(smaller)
        value = by_total.div_(total).sub_(by_smaller).div_(rest).sum(-1)
        ctx.save_for_backward(p_larger, by_smaller.neg_(), d_smaller)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        p_larger, d_larger, d_smaller = ctx.saved_tensors
        upstream = grad_outputs[0].unsqueeze(-1)
        d_p = d_q = None
        if ctx.needs_input_grad[0]:
            d_p = upstream * torch.lerp(d_smaller, d_larger, p_larger)
        if ctx.needs_input_grad[1]:
            d_q = upstream * torch.lerp(d_larger, d_smaller, p_larger)
        return d_p, d_q, None, None


def _exponents(alpha: float, beta: float) -> tuple[float, float, float]:
    """(alpha, beta, alpha + beta), 0 where rounding or a tiny number would only divide by dust."""
    return round(alpha, 12), round(beta, 12), round(alpha + beta, 12)


def _divided_difference(one: float, other: float, t: Tensor) -> tuple[Tensor, Tensor]:
    """(g(one) - g(other)) / (one - other) for g(y) = (exp(y t) - 1)/y, elementwise in t <= 0.

    Returns x and d with the value exp(x) d, where x holds what grows exponentially as t falls.
    """
    low, high = min(one, other), max(one, other)
    if low == high:
        return _slope(low, t)
    near = (high - low) * t > -NEAR
    near_growth, near_difference = _mean_slope(low, high, t.masked_fill(~near, 0.0))
    rate, gap = min(low, 0.0), high - low
    if 0.0 < gap <= low:  # the same, and a small gap divides no rounding error
        grown = (low * t).exp() * torch.expm1(gap * t) / gap
        difference = (grown - torch.expm1(low * t) / low) / high
    else:
        difference = (_damped(high, rate, t) - _damped(low, rate, t)) / gap
    return (
        torch.where(near, near_growth, _times(rate, t)),
        torch.where(near, near_difference, difference),
    )


def _mean_slope(low: float, high: float, t: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of g' from low to high, by Gauss's two points, as exp(growth) times the rest."""
    middle, half = (low + high) / 2, (high - low) / math.sqrt(12)
    growth, one = _slope(round(middle - half, 12), t)
    other_growth, other = _slope(round(middle + half, 12), t)
    return growth, 0.5 * (one + (other_growth - growth).exp() * other)


def _damped(y: float, rate: float, t: Tensor) -> Tensor:
    """exp(-rate t) g(y), for rate <= 0 and rate <= y."""
    if y < 0.0:
        return -_times(y - rate, t).exp() * torch.expm1(-y * t) / y
    if rate == 0.0:
        return t if y == 0.0 else torch.expm1(y * t) / y
    growth = t.masked_fill(torch.isneginf(t), 0.0) if y == 0.0 else torch.expm1(y * t) / y
    return (-rate * t).exp() * growth


def _slope(y: float, t: Tensor) -> tuple[Tensor, Tensor]:
    """g'(y) = (x e^x - (e^x - 1)) / y^2 with x = y t, as exp(growth) times the rest.

    By its series where x is small; with e^x taken out where x > 0.
    """
    if y == 0.0:
        return torch.zeros_like(t), 0.5 * t * t
    x = abs(y) * t
    small = x > -0.1
    near = torch.where(small, x, 0.0)
    if y > 0.0:
        # x e^x tends to 0 as x tends to -inf, where the plain product would be -inf * 0.
        far = torch.where(small | torch.isneginf(x), -1.0, x)
        series = 1 / 3 + near * (1 / 8 + near * (1 / 30 + near * (1 / 144 + near / 840)))
        exact = torch.where(torch.isneginf(x), 0.0, far * far.exp()) - torch.expm1(x)
        growth = torch.zeros_like(t)
    else:
        series = 1 / 6 + near * (1 / 24 + near * (1 / 120 + near * (1 / 720 + near / 5040)))
        exact = torch.expm1(x) - x
        growth = y * t
    rest = torch.where(small, (0.5 + near * series) * (near / y) ** 2, exact / y**2)
    return growth, rest


def _times(rate: float, t: Tensor) -> Tensor:
    """rate t, and 0 for rate = 0 even where t is infinite."""
    return torch.zeros_like(t) if rate == 0.0 else rate * t
