"""Squared differences of logits.

Both models' logits are known up to one number a token, which centring or pairing removes, so
log-probabilities serve as well.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.api import choice, divergence

WORDS = ("student", "teacher", "uniform")


@divergence(
    "logit-mse",
    source="direct logit distillation, arXiv:1312.6184; centred: DLD-mean in arXiv:2509.25837",
    infinite_where=("teacher", "student"),
)
def logit_mse(teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
    """mean over the vocabulary of (d - mean d)^2, d = z_q - z_p, the difference of the logits.

    Does not change when all logits of a model move by one number. Ids that neither model can say
    do not count.
    """
    difference, possible = _difference(teacher_logp, student_logp)
    uniform = _uniform(possible, difference)
    return _over_pairs(difference, uniform, uniform)


def _zeros(params: Mapping[str, Any]) -> Sequence[Any]:
    """A weight that vanishes at a zero takes its infinite difference away."""
    weights = {params["first_weight"], params["second_weight"]}
    return [
        *(["teacher"] if weights - {"teacher"} else []),
        *(["student"] if weights - {"student"} else []),
    ]


@divergence(
    "concrete-score",
    source="CSD, arXiv:2509.25837, Eq. 8 and Theorem 3",
    infinite_where=_zeros,
    first_weight=choice(*WORDS),
    second_weight=choice(*WORDS),
    detach_weights=True,
)
def concrete_score(
    teacher_logp: Tensor,
    student_logp: Tensor,
    *,
    first_weight: str,
    second_weight: str,
    detach_weights: bool,
) -> Tensor:
    """1/2 sum over pairs (y, x) of w1(y) w2(x) (d_x - d_y)^2, d = z_q - z_p, w1, w2 detached.

    w1 = `first_weight` and w2 = `second_weight` are the student's q, the teacher's p or uniform;
    with both q it is the variance of d under q. Computed in O(V) as half of Var_1 d + Var_2 d +
    (E_1 d - E_2 d)^2. Ids that neither model can say do not count. The released code has half this
    gradient. With both q, a step that makes q flatter may raise the value: the weights follow.
    """
    difference, possible = _difference(teacher_logp, student_logp)
    weights = {
        "student": lambda: (student_logp.detach() if detach_weights else student_logp).exp(),
        "teacher": lambda: (teacher_logp.detach() if detach_weights else teacher_logp).exp(),
        "uniform": lambda: _uniform(possible, difference),
    }
    first = weights[first_weight]()
    second = first if second_weight == first_weight else weights[second_weight]()
    return _over_pairs(difference, first, second)


def _difference(teacher_logp: Tensor, student_logp: Tensor) -> tuple[Tensor, Tensor]:
    """log q - log p, [..., V], 0 at ids that neither model can say; and which ids one can say."""
    possible = ~(torch.isneginf(teacher_logp) & torch.isneginf(student_logp))
    return (student_logp - teacher_logp).masked_fill(~possible, 0.0), possible


def _uniform(possible: Tensor, like: Tensor) -> Tensor:
    possible = possible.to(like.dtype)
    return possible / possible.sum(-1, keepdim=True)


def _over_pairs(difference: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """1/2 sum over pairs (y, x) of first_y second_x (d_x - d_y)^2: three times [..., V] -> [...].

    The weights sum to 1. +inf where one of them meets an infinite difference.
    """
    unbounded = torch.isinf(difference)
    infinite = (unbounded & ((first > 0.0) | (second > 0.0))).any(-1)
    difference = difference.masked_fill(unbounded, 0.0)
    value, mean = _variance(difference, first)
    if second is not first:
        other_value, other_mean = _variance(difference, second)
        value = 0.5 * (value + other_value + (mean - other_mean).square())
    return value.masked_fill(infinite, math.inf)


def _variance(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * values).sum(-1, keepdim=True)
    return (weights * (values - mean).square()).sum(-1), mean.squeeze(-1)
