"""The same diagnostics for every objective, so that their curves can be laid over each other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.data.batches import MicroBatch
from kdbench.head.chunked import PerToken, Teacher, chunk_size
from kdbench.models.model import Head, hidden_states
from kdbench.variants.logspace import entropy, kl


@dataclass(frozen=True)
class HeldOut:
    """One fixed batch of dev, with the teacher's hidden states on it where there is a teacher."""

    batch: MicroBatch
    teacher: Teacher | None


@torch.no_grad()
def measure(
    model: torch.nn.Module, head: Head, per_token: PerToken, held_out: HeldOut
) -> dict[str, float]:
    """Means over the held-out response tokens, in nats where they are entropies.

    Returns:
        `dev_loss` (this objective's own) and `dev_nll`; with a teacher also the true `forward_kl`
        and `reverse_kl`, the total variation `tvd` and the `student_entropy`, at temperature 1.
    """
    batch = held_out.batch
    hidden = hidden_states(model, batch.tokens, batch.positions)
    sums: dict[str, Tensor] = {}
    size = chunk_size(head)
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        labels = batch.labels[part]
        student_logits = head.logits(hidden[part])
        student_logp = torch.log_softmax(student_logits, dim=-1)
        teacher_logits = student_logits
        values = {"dev_nll": -student_logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)}
        if held_out.teacher is not None:
            teacher_logits = held_out.teacher.head.logits(held_out.teacher.hidden[part])
            teacher_logp = torch.log_softmax(teacher_logits, dim=-1)
            values["forward_kl"] = kl(teacher_logp, student_logp)
            values["reverse_kl"] = kl(student_logp, teacher_logp)
            values["tvd"] = 0.5 * (teacher_logp.exp() - student_logp.exp()).abs().sum(-1)
            values["student_entropy"] = entropy(student_logp)
        values["dev_loss"] = per_token(teacher_logits, student_logits, labels)
        for name, value in values.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.sum()
    return {name: float(total) / len(hidden) for name, total in sums.items()}


def explain_non_finite(
    per_token: PerToken,
    hidden: Tensor,
    head: Head,
    labels: Tensor,
    teacher: Teacher | None,
    weights: Tensor | None = None,
) -> str | None:
    """Names the first token and vocabulary id at which a loss is not finite; None: it is.

    A token whose weight is 0 is no part of the loss.
    """
    size = chunk_size(head)
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        with torch.no_grad():
            student = head.logits(hidden[part])
            other = student if teacher is None else teacher.head.logits(teacher.hidden[part])
            values = per_token(other, student, labels[part])
        infinite = ~torch.isfinite(values)
        if weights is not None:
            infinite &= weights[part] != 0
        bad = infinite.nonzero().flatten()
        if len(bad):
            row = int(bad[0])
            zeros = torch.isneginf(student[row]) != torch.isneginf(other[row])
            if zeros.any():
                token = int(zeros.nonzero()[0])
                owner = "student" if torch.isneginf(student[row, token]) else "teacher"
                return f"only the {owner} gives probability 0 to id {token}"
            if not torch.isfinite(student[row]).all():
                return "the student's logits are not finite"
            if (other[row].isnan() | other[row].isposinf()).any():
                return "the teacher's logits are not finite"
            return f"at a token whose label is id {int(labels[part][row])}"
    return None
