"""The KL divergences split at the label: how much it gets, and how the rest is spread."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.api import kl, labelled, number


def _refused(params: Mapping[str, Any]) -> str | None:
    if params["target_weight"] == 0.0 == params["nontarget_weight"]:
        return "with target_weight=0 and nontarget_weight=0 the loss is always 0"
    return None


def _dkd_zeros(params: Mapping[str, Any]) -> Sequence[Any] | None:
    """Without the non-target term a student's zero matters at the label only."""
    return ["student"] if params["nontarget_weight"] > 0.0 else None


@labelled(
    "dkd",
    source="DKD, arXiv:2203.08679",
    check=_refused,
    infinite_where=_dkd_zeros,
    target_weight=number(1.0, "[0, inf)"),
    nontarget_weight=number(5.0, "[0, inf)"),
)
def dkd(
    teacher_logp: Tensor,
    student_logp: Tensor,
    *,
    labels: Tensor,
    target_weight: float,
    nontarget_weight: float,
) -> Tensor:
    """a KL(b_p || b_q) + b KL(p' || q'), b_p = (p_label, 1 - p_label), p' = p without the label.

    a = `target_weight`, b = `nontarget_weight`; p' and q' are renormalised, and KL(p || q) is the
    first KL plus 1 - p_label times the second. Where p is certain of the label there is no p' and
    the second term is 0 (our reading). The released code's T^2 and warm-up belong to the loop.
    """
    p_split, p_rest = _decoupled(teacher_logp, labels)
    q_split, q_rest = _decoupled(student_logp, labels)
    if nontarget_weight == 0.0:
        return target_weight * kl(p_split, q_split)
    rest = nontarget_weight * kl(p_rest, q_rest)
    return rest if target_weight == 0.0 else target_weight * kl(p_split, q_split) + rest


@labelled(
    "drkl",
    source="diversity-aware reverse KL, arXiv:2604.00223, Eq. 9",
    infinite_where=("teacher",),
    gamma=number(0.5, "(0, inf)"),
)
def drkl(teacher_logp: Tensor, student_logp: Tensor, *, labels: Tensor, gamma: float) -> Tensor:
    """KL(b_q || b_p) + g KL(q' || p'), b_q = (q_label, 1 - q_label), q' = q without the label.

    Reverse KL is this with 1 - q_label in place of g = `gamma`: a constant there keeps the second
    term from raising the label's logit. Our reading of the paper, by way of accounts of its Eq. 9;
    the default of gamma is ours.
    """
    p_split, p_rest = _decoupled(teacher_logp, labels)
    q_split, q_rest = _decoupled(student_logp, labels)
    return kl(q_split, p_split) + gamma * kl(q_rest, p_rest)


def _decoupled(logp: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log (p_label, 1 - p_label), [N, 2], and the log of p without the label, renormalised, [N, V].

    The second is -inf everywhere where p is certain of the label.
    """
    label = labels.unsqueeze(-1)
    others = logp.scatter(-1, label, -math.inf)
    certain = others.amax(-1, keepdim=True) == -math.inf
    mass = torch.logsumexp(others.masked_fill(certain, 0.0), -1, keepdim=True)
    split = torch.cat([logp.gather(-1, label), mass.masked_fill(certain, -math.inf)], -1)
    return split, others - mass.masked_fill(certain, 0.0)
