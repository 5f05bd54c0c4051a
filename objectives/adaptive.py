"""Forward and reverse KL mixed by weights that compare the teacher's p with the student's q."""

import math

import torch
from torch import Tensor

from kdbench.api import divergence, entropy, expectation, kl, number


@divergence(
    "adaptive-kl",
    source="AKL, arXiv:2404.02657",
    infinite_where=("teacher", "student"),
    mu=number(0.5, "[0, 1)"),
)
def adaptive_kl(teacher_logp: Tensor, student_logp: Tensor, *, mu: float) -> Tensor:
    """(g_h KL(p || q) + g_t KL(q || p)) / (g_h + g_t), g = sum |p - q| over p's head and tail.

    The head is what p ranks first while its cumulative probability stays within `mu`, and always
    the first id. Ids of equal p enter together or not at all, the most probable ones always (our
    reading, so that the order of the vocabulary does not matter). g is detached; at p = q both
    weights are 1/2, and a weight of 0 drops its KL. Released code lets the id that crosses `mu`
    into the head too. Costs a sort of the vocabulary.
    """
    p, q = teacher_logp.detach().exp(), student_logp.detach().exp()
    gap, head = (p - q).abs(), _head(p, mu)
    of_head = gap.masked_fill(~head, 0.0).sum(-1)
    of_tail = gap.masked_fill(head, 0.0).sum(-1)
    total = of_head + of_tail
    equal = total == 0.0
    safe = total.masked_fill(equal, 1.0)
    forward = (of_head / safe).masked_fill(equal, 0.5)
    reverse = (of_tail / safe).masked_fill(equal, 0.5)
    return _weighted(forward, kl(teacher_logp, student_logp)) + _weighted(
        reverse, kl(student_logp, teacher_logp)
    )


@divergence(
    "bdkd",
    source="BD-KD, arXiv:2212.12965: its student's loss",
    infinite_where=("teacher", "student"),
)
def bdkd(teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
    """w_t KL(p || q) + w_s KL(q || p), the KL from the flatter distribution counted twice.

    w_t = 2 if H(p) > H(q), w_s = 2 if H(q) > H(p), else they are 1. The paper trains the teacher
    too; here it is fixed.
    """
    of_teacher, of_student = entropy(teacher_logp), entropy(student_logp)
    forward, reverse = kl(teacher_logp, student_logp), kl(student_logp, teacher_logp)
    return (1 + (of_teacher > of_student)) * forward + (1 + (of_student > of_teacher)) * reverse


@divergence("todi", source="ToDi, arXiv:2505.16297", infinite_where=("teacher", "student"))
def todi(teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
    """sum w p log(p/q) + (1 - w) q log(q/p), w = p / (p + q) for each id, detached.

    Forward KL where the student says too little, reverse KL where it says too much. Since
    w p - (1 - w) q = p - q, its value is KL(p || q) + KL(q || p), twice that of jeffreys; only the
    gradient differs, and without the detaching not even that.
    """
    impossible = torch.isneginf(teacher_logp) & torch.isneginf(student_logp)
    log_ratio = (teacher_logp - student_logp).masked_fill(impossible, 0.0)
    constant = log_ratio.detach()
    forward = expectation(teacher_logp, constant.sigmoid() * log_ratio)
    return forward - expectation(student_logp, (-constant).sigmoid() * log_ratio)


def _head(p: Tensor, mu: float) -> Tensor:
    """Which ids [..., V] belong to the head; decided by p's values alone, whatever their order."""
    ordered = p.sort(dim=-1, descending=True).values
    following = torch.nn.functional.pad(ordered[..., 1:], (0, 1), value=-1.0)
    within = (ordered.cumsum(-1) <= mu) & (ordered > following)
    smallest = ordered.masked_fill(~within, math.inf).amin(-1, keepdim=True)
    return p >= torch.minimum(smallest, ordered[..., :1])


def _weighted(weight: Tensor, value: Tensor) -> Tensor:
    """Their product, 0 where the weight is 0 and the value infinite."""
    return weight * value.masked_fill(weight == 0.0, 0.0)
