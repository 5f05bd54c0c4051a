"""Safe arithmetic on log-probabilities, the words that objectives are written in.

All functions take [..., V] tensors of log-probabilities in which -inf is legal, work in the dtype
they are given, and never form the logarithm of a probability. Where a naive formula would meet
-inf - -inf, the operands are replaced *before* the operation: masking its result afterwards would
leave NaN in the gradient.
"""

import math

import torch
from torch import Tensor


def expectation(logp: Tensor, values: Tensor) -> Tensor:
    """sum_v p_v x_v over the last dimension, where 0 times anything is 0.

    A probability that underflows in the dtype at hand counts as 0.
    """
    probability = logp.exp()
    return (probability * values.masked_fill(probability == 0.0, 0.0)).sum(-1)


def kl(logp: Tensor, logr: Tensor) -> Tensor:
    """KL(p || r) = sum p log(p / r): [..., V], [..., V] -> [...], in nats.

    +inf where p puts mass on an id that r excludes.
    """
    # Subtracting first is safe: the mask cuts the gradient before it meets -inf - -inf.
    return expectation(logp, logp - logr)


def entropy(logp: Tensor) -> Tensor:
    """H(p) = -sum p log p over the last dimension, in nats."""
    return -expectation(logp, logp)


def arithmetic_mixture(teacher_logp: Tensor, student_logp: Tensor, teacher_weight: float) -> Tensor:
    """log(w p + (1 - w) q), elementwise, for w = `teacher_weight` in [0, 1]."""
    if teacher_weight == 0.0:
        return student_logp
    if teacher_weight == 1.0:
        return teacher_logp
    impossible = (teacher_logp == -math.inf) & (student_logp == -math.inf)
    mixture = torch.logaddexp(
        teacher_logp.masked_fill(impossible, 0.0) + math.log(teacher_weight),
        student_logp.masked_fill(impossible, 0.0) + math.log1p(-teacher_weight),
    )
    return mixture.masked_fill(impossible, -math.inf)
