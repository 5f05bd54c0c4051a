"""AMiD: any divergence over the alpha-mixture of teacher and student (arXiv:2510.15982)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdbench.api import Variant, choice, divergence, inner, number, preset

ALPHA_GRID = (-5.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0)


def alpha_mixture(
    teacher_logp: Tensor, student_logp: Tensor, *, alpha: float, teacher_weight: float
) -> Tensor:
    """The assistant r ~ (w p^s + (1 - w) q^s)^(1/s), s = (1 - alpha)/2; p^w q^(1-w) at alpha = 1.

    alpha = -1 is the arithmetic mixture, 1 the geometric, 3 the harmonic. With d = log(p/q),

        log r = log q + log(1 + w (exp(s d) - 1)) / s + constant,

    and the same with p and q exchanged where s d > 0. `expm1` and `log1p` make this exact as s
    tends to 0, where the textbook form divides a rounding error by s, and nothing overflows.

    Args:
        teacher_logp: [..., V].
        student_logp: [..., V].
        alpha: any real number.
        teacher_weight: w in [0, 1]; the paper's lambda.

    Returns:
        Normalised log-probabilities, [..., V].
    """
    if teacher_weight == 0.0:
        return student_logp
    if teacher_weight == 1.0:
        return teacher_logp
    mixture: Tensor = _PowerMean.apply(  # type: ignore[no-untyped-call]
        teacher_logp, student_logp, (1.0 - alpha) / 2.0, teacher_weight
    )
    return torch.log_softmax(mixture, dim=-1)


class _PowerMean(torch.autograd.Function):
    """log (w p^s + (1 - w) q^s)^(1/s), elementwise; its derivative for log q is q's share."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, scale: float, weight: float) -> Tensor:
        if scale == 0.0:
            impossible = torch.isneginf(p) & torch.isneginf(q)
            ctx.save_for_backward(torch.full_like(p, 1.0 - weight))
            return torch.where(impossible, -math.inf, weight * p + (1.0 - weight) * q)
        # -inf - -inf: an id that neither can say stays at -inf, whatever the exponent.
        exponent = (p - q).mul_(scale).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
        p_dominates = exponent > 0
        other = torch.where(p_dominates, p.new_tensor(1.0 - weight), p.new_tensor(weight))
        grown = torch.expm1(exponent.abs_().neg_())
        relative = other * grown
        share = (other + relative).div_(1.0 + relative)
        mixture = torch.where(p_dominates, p, q) + relative.log1p_().div_(scale)
        ctx.save_for_backward(torch.where(p_dominates, share, 1.0 - share))
        return mixture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (share,) = ctx.saved_tensors
        upstream = grad_outputs[0]
        d_p = upstream * (1.0 - share) if ctx.needs_input_grad[0] else None
        d_q = upstream * share if ctx.needs_input_grad[1] else None
        return d_p, d_q, None, None


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
    with KL is skew-kl (pr) and skew-reverse-kl (qr); w = 0 with pr is D(p, q) itself.
    """
    assistant = alpha_mixture(
        teacher_logp, student_logp, alpha=alpha, teacher_weight=teacher_weight
    )
    if detach_assistant:
        assistant = assistant.detach()
    arguments = {"p": teacher_logp, "q": student_logp, "r": assistant}
    return divergence(arguments[order[0]], arguments[order[1]])


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
