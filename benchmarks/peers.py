"""What others do in a step: the padded loop of published code, TRL's GKD, Liger's chunked loss.

The padded loop is written here as those of MiniLLM, DistiLLM and what follows them are: every batch
is padded to the longest length that is allowed, both models give logits at all positions, the loss
takes softmaxes in float32 with plain autograd, and prompts and padding are masked out at the end.
The cross-entropy is always taken, and weighs 1 - kd_ratio = 0. The published losses leave out terms
that have no gradient, and so do these.
"""

import importlib
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kdbench.data.encode import Encoded
from kdbench.head.chunked import Teacher
from kdbench.models.model import Head, mixed_precision

IGNORE = -100
KD_RATIO = 1.0
"""The published scripts' share of the distillation loss."""
PADDED_ROWS = 2
"""Rows of a micro-batch of the padded loop: all at once is as slow and takes 13 GB and more."""

_probabilities = partial(functional.softmax, dim=-1, dtype=torch.float32)
_log_probabilities = partial(functional.log_softmax, dim=-1, dtype=torch.float32)

Inputs = Mapping[str, Tensor]
Published = Callable[[Tensor, Tensor], Tensor]
"""(student_logits [B, T, V], teacher_logits [B, T, V]) -> values [B, T]."""


def forward_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    p, log_q = _probabilities(teacher_logits), _log_probabilities(student_logits)
    return -torch.masked_fill(p * log_q, torch.isinf(student_logits), 0).sum(-1)


def skew_kl(student_logits: Tensor, teacher_logits: Tensor, weight: float = 0.1) -> Tensor:
    p, q = _probabilities(teacher_logits), _probabilities(student_logits)
    mixture = torch.log(weight * p + (1 - weight) * q)
    return -torch.masked_fill(p * mixture, _infinite(student_logits, teacher_logits), 0).sum(-1)


def jsd(student_logits: Tensor, teacher_logits: Tensor, beta: float = 0.5) -> Tensor:
    p, q = _probabilities(teacher_logits), _probabilities(student_logits)
    mixture = torch.log(beta * p + (1 - beta) * q)
    infinite, total = _infinite(student_logits, teacher_logits), 0.0
    for own, logits, share in ((p, teacher_logits, beta), (q, student_logits, 1 - beta)):
        product = torch.masked_fill(own * mixture, infinite, 0)
        product -= torch.masked_fill(own * _log_probabilities(logits), infinite, 0)
        total = total - share * product.sum(-1)
    return total


def amid_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    p, log_r = _probabilities(teacher_logits), _assistant(student_logits, teacher_logits)
    infinite = _infinite(student_logits, teacher_logits)
    return -torch.masked_fill(p * log_r, infinite, 0).sum(-1)


def amid(
    student_logits: Tensor, teacher_logits: Tensor, alpha: float = 0.2, beta: float = 0.7
) -> Tensor:
    p, r = _probabilities(teacher_logits), _assistant(student_logits, teacher_logits).exp()
    total = alpha + beta
    product = p.pow(alpha) * r.pow(beta)
    ends = alpha / total * p.pow(total) + beta / total * r.pow(total)
    infinite = _infinite(student_logits, teacher_logits)
    return torch.masked_fill((ends - product) / (alpha * beta), infinite, 0).sum(-1)


PUBLISHED: dict[str, Published] = {
    "forward-kl": forward_kl,
    "jsd": jsd,
    "skew-kl": skew_kl,
    "amid[divergence=kl]": amid_kl,
    "amid": amid,
}
"""By kdbench's names, with the same parameters."""


def padded_inputs(data: Encoded, length: int) -> Inputs:
    """Token ids, attention mask and labels of all rows, padded on the right to a length."""
    tokens = torch.zeros(len(data), length, dtype=torch.long)
    labels = torch.full_like(tokens, IGNORE)
    for row in range(len(data)):
        start, end = len(data.prompt(row)), int(data.lengths[row])
        tokens[row, :end] = torch.tensor(data.prompt(row) + data.response(row))
        labels[row, start:end] = tokens[row, start:end]
    inside = torch.arange(length) < data.lengths[:, None]
    return {"input_ids": tokens, "attention_mask": inside.long(), "labels": labels}


def padded_step(student: Any, teacher: Any, inputs: Inputs, published: Published) -> None:
    """One step of the padded loop, in micro-batches: the gradient is the sum over tokens / their
    number."""
    student.zero_grad(set_to_none=True)
    count = (inputs["labels"] != IGNORE).sum()
    for start in range(0, len(inputs["labels"]), PADDED_ROWS):
        part = {key: value[start : start + PADDED_ROWS] for key, value in inputs.items()}
        labels = part.pop("labels")
        with mixed_precision(student.device):
            student_logits = student(**part, use_cache=False).logits
            with torch.no_grad():
                teacher_logits = teacher(**part, use_cache=False).logits
        targets, shifted = labels[:, 1:].reshape(-1), student_logits[:, :-1]
        values = published(shifted, teacher_logits[:, :-1]).reshape(-1)
        distilled = (values * (targets != IGNORE)).sum() / count
        flat = shifted.float().reshape(-1, shifted.shape[-1])
        lm_loss = functional.cross_entropy(flat, targets, ignore_index=IGNORE, reduction="sum")
        loss = (1 - KD_RATIO) * lm_loss / count + KD_RATIO * distilled
        loss.backward()  # type: ignore[no-untyped-call]


def trl_gkd_step(student: Any, teacher: Any, inputs: Inputs) -> Callable[[], None]:
    """One step with the loss of TRL's GKDTrainer and a live teacher."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    compute_loss: Any = GKDTrainer.compute_loss
    trainer = SimpleNamespace(
        teacher_model=teacher, beta=0.5, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
    )

    def step() -> None:
        student.zero_grad(set_to_none=True)
        with mixed_precision(student.device):
            loss = compute_loss(trainer, student, inputs)
        loss.backward()

    return step


def liger_loss(
    name: str, hidden: Tensor, head: Head, labels: Tensor, teacher: Teacher
) -> Callable[[], Tensor] | None:
    """Liger's fused linear and divergence, not compiled; None: it has none such, or is missing."""
    beta = {"forward-kl": 0.0, "jsd": 0.5, "reverse-kl": 1.0}.get(name)
    if beta is None:
        return None
    try:
        liger: Any = importlib.import_module("liger_kernel.chunked_loss")
    except ImportError as error:
        print(f"liger is left out: {error}")
        return None
    # Its chunks are of 1,024 tokens unless it is told otherwise.
    loss = liger.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=False
    )

    return partial(loss, hidden, head.weight, teacher.hidden, teacher.head.weight, labels)


def _assistant(
    student_logits: Tensor, teacher_logits: Tensor, alpha: float = -5.0, weight: float = 0.1
) -> Tensor:
    log_p, log_q = _log_probabilities(teacher_logits), _log_probabilities(student_logits)
    power = (1 - alpha) / 2
    terms = [math.log(weight) + power * log_p, math.log(1 - weight) + power * log_q]
    mixture = torch.logsumexp(torch.stack(terms), dim=0) / power
    return mixture - torch.logsumexp(mixture, dim=-1, keepdim=True)


def _infinite(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return torch.isinf(student_logits) | torch.isinf(teacher_logits)
