"""AMiD: any divergence over the alpha-mixture of teacher and student (arXiv:2510.15982)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdbench.api import Variant, choice, divergence, inner, number, preset

ALPHA_GRID = (-5.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0)
SMALL_SCALE = 0.2
"""From this exponent on, dividing a rounding error by it does no harm."""


def alpha_mixture(
    teacher_logp: Tensor, student_logp: Tensor, *, alpha: float, teacher_weight: float
) -> Tensor:
    """The assistant r ~ (w p^s + (1 - w) q^s)^(1/s), s = (1 - alpha)/2; p^w q^(1-w) at alpha = 1.

    alpha = -1 is the arithmetic mixture, 1 the geometric, 3 the harmonic. With d = log(p/q),

        log r = log q + log(1 + w (exp(s d) - 1)) / s + constant,

    and the same with p and q exchanged where s d > 0, so nothing overflows. Where s is small,
    `expm1` and `log1p` keep it exact: the textbook form divides a rounding error by s.

    Normalised log-probabilities, [..., V], for any real alpha and w = `teacher_weight` (the paper's
    lambda) in [0, 1]. From alpha = 1 on, r lives where both p and q do; where they share no id
    there is no r, and all are -inf.
    """
    assistant, apart = _assistant(teacher_logp, student_logp, alpha, teacher_weight)
    return assistant if apart is None else assistant.masked_fill(apart, -math.inf)


def _assistant(
    teacher_logp: Tensor, student_logp: Tensor, alpha: float, teacher_weight: float
) -> tuple[Tensor, Tensor | None]:
    """The assistant and the tokens [..., 1] that have none, where it is uniform; None: no such."""
    if teacher_weight == 0.0:
        return student_logp, None
    if teacher_weight == 1.0:
        return teacher_logp, None
    mixture, apart = _PowerMean.apply(  # type: ignore[no-untyped-call]
        teacher_logp, student_logp, (1.0 - alpha) / 2.0, teacher_weight
    )
    return torch.log_softmax(mixture, dim=-1), apart if alpha >= 1.0 else None


class _PowerMean(torch.autograd.Function):
    """log (w p^s + (1 - w) q^s)^(1/s), elementwise; its derivative for log q is q's share.

    Also the tokens [..., 1] at which it is -inf throughout; their row is 0 instead. Selections are
    arithmetic with masks of 0.0 and 1.0: boolean ones cost more than all the rest on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, q: Tensor, scale: float, weight: float
    ) -> tuple[Tensor, Tensor]:
        if scale == 0.0:
            mixture = weight * p + (1.0 - weight) * q
            share = p.new_full((), 1.0 - weight)
        else:
            # -inf - -inf: an id that neither can say stays at -inf, whatever the exponent.
            exponent = (p - q).mul_(scale).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
            if abs(scale) < SMALL_SCALE:
                share, log_total = _near_geometric(exponent, weight)
            else:  # both terms relative to the larger
                share = exponent.clamp(min=0.0).neg_().exp_().mul_(1.0 - weight)
                total = exponent.clamp_(max=0.0).exp_().mul_(weight).add_(share)
                share.div_(total)
                log_total = total.log_()
            mixture = torch.maximum(p, q) if scale > 0.0 else torch.minimum(p, q)
            mixture += log_total.div_(scale)
        apart = p.new_zeros((*p.shape[:-1], 1), dtype=torch.bool)
        if scale <= 0.0:
            apart = mixture.amax(-1, keepdim=True) == -math.inf
            mixture = torch.maximum(mixture, torch.where(apart, 0.0, -math.inf).to(p.dtype))
        ctx.save_for_backward(share)
        ctx.mark_non_differentiable(apart)
        return mixture, apart

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (share,) = ctx.saved_tensors
        upstream = grad_outputs[0]
        d_q = upstream * share
        d_p = upstream - d_q if ctx.needs_input_grad[0] else None
        return d_p, d_q, None, None


def _near_geometric(exponent: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """q's share of w exp(x) + 1 - w, and the logarithm of that sum over its larger exponential."""
    p_dominates = torch.gt(exponent, 0.0, out=torch.empty_like(exponent))
    other = p_dominates * (1.0 - 2.0 * weight) + weight
    relative = exponent.abs_().neg_().expm1_().mul_(other)
    share = (other + relative).div_(1.0 + relative)
    share = torch.lerp(1.0 - share, share, p_dominates)
    return share, relative.log1p_()


def _refused(params: Mapping[str, Any]) -> str | None:
    order, weight = params["order"], params["teacher_weight"]
    if weight == 0.0 and "q" in order:
        return f"with teacher_weight=0 the assistant is the student, so order={order} is always 0"
    if weight == 1.0 and "p" in order:
        return f"with teacher_weight=1 the assistant is the teacher, so order={order} is always 0"
    if params["detach_assistant"] and "q" not in order:
        return f"with the assistant detached, order={order} leaves the student without a gradient"
    return None


def _zeros(params: Mapping[str, Any]) -> Sequence[Any] | None:
    """Where the inner divergence meets a zero of r or of the other argument, one-sided."""
    weight, order = params["teacher_weight"], params["order"]
    infinite = params["divergence"].infinite_where()
    if infinite is None:
        return None
    found = []
    for zero_of in ("teacher", "student"):
        p_zero, q_zero = zero_of == "teacher", zero_of == "student"
        if weight in (0.0, 1.0):
            r_zero = p_zero if weight == 1.0 else q_zero
        else:
            r_zero = params["alpha"] >= 1.0
        zero = {"p": p_zero, "q": q_zero, "r": r_zero}
        first, second = zero[order[0]], zero[order[1]]
        if first != second and ("teacher" if first else "student") in infinite:
            found.append(zero_of)
    return found


@divergence(
    "amid",
    source="AMiD, arXiv:2510.15982, Table 1 (alpha and order: inferred from Table 3, scripts)",
    group="core",
    grid={"alpha": ALPHA_GRID},
    check=_refused,
    infinite_where=_zeros,
    alpha=number(-5.0),
    teacher_weight=number(0.1, "[0, 1]"),
    divergence=inner("alpha-beta"),
    order=choice("pr", "qr", "rp", "rq"),
    detach_assistant=False,
)
def amid(
    teacher_logp: Tensor,
    student_logp: Tensor,
    *,
    alpha: float,
    teacher_weight: float,
    divergence: Variant,
    order: str,
    detach_assistant: bool,
) -> Tensor:
    """D(first, second) for two of p, q and the assistant r, named by `order` (pr: D(p, r)).

    r is the alpha-mixture with weight w = `teacher_weight` on the teacher. Special cases: alpha -1
    with KL is skew-kl (pr) and skew-reverse-kl (qr); w = 0 with pr is D(p, q) itself. From
    alpha = 1 on, +inf where p and q share no id: there is no assistant then. Just below 1, r may
    underflow at an id that one model excludes; it counts as 0 there. The released code takes every
    alpha >= 1 for 1.
    """
    assistant, apart = _assistant(teacher_logp, student_logp, alpha, teacher_weight)
    if detach_assistant:
        assistant = assistant.detach()
    arguments = {"p": teacher_logp, "q": student_logp, "r": assistant}
    value = divergence(arguments[order[0]], arguments[order[1]])
    return value if apart is None else value.masked_fill(apart.squeeze(-1), math.inf)


preset(
    "amid-paper",
    "amid[alpha=-5,teacher_weight=0.1,divergence=alpha-beta[alpha=0.2,beta=0.7],order=pr]",
    source="AMiD, arXiv:2510.15982, Table 1; alpha and order are inferred",
)
preset(
    "amid-released",
    "amid[alpha=0.5,teacher_weight=0.5,divergence=alpha-beta[alpha=0.2,beta=0.7],order=pr]",
    source="the default of AMiD's released code; another method than the paper's best setting",
)
