"""MiniLLM's policy gradient (arXiv:2306.08543): log-probabilities -> advantages -> weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.data.batches import MicroBatch, collate
from kdbench.data.encode import Encoded
from kdbench.head.chunked import Teacher, chunked_loss, label_logp
from kdbench.models.model import Head, hidden_states, mixed_precision
from kdbench.train.batch import GlobalBatch, Portion, Sequences
from kdbench.train.job import Job
from kdbench.train.state import TrainState

ROWS = 16
"""Sequences in a forward pass that only scores."""


@dataclass(frozen=True)
class Rollout:
    """Sampled responses with what the gradient needs, one value a response token.

    Attributes:
        first: the step whose batch stands first in `data`.
        student_logp: log q(y) of the student that sampled.
        importance: w = q(y) over the probability that y was sampled with.
        advantage: the rewards of the later tokens.
    """

    first: int
    data: Encoded
    student_logp: Tensor
    importance: Tensor
    advantage: Tensor


@dataclass(frozen=True)
class PolicyPortion(Portion):
    """The objective, weighted by importance, plus PPO's clipped surrogate."""

    rollout: Rollout | None = None
    clip: float = 0.0
    factor: float = 1.0
    """Of the surrogate; the single-step term has its own."""

    def loss(
        self, hidden: Tensor, head: Head, batch: MicroBatch, teacher: Teacher | None
    ) -> Tensor:
        """-sum w min(ratio A, clipped ratio A), and the single-step term.

        A clipped token has no gradient; the others have that of -log q(y), w ratio A times. Where w
        or A is 0 the other factors may be infinite, and the token counts nothing.
        """
        single_step = super().loss(hidden, head, batch, teacher)
        assert self.rollout is not None
        old, importance, advantage = (
            self.of_batch(values, batch, hidden.device)
            for values in (
                self.rollout.student_logp,
                self.rollout.importance,
                self.rollout.advantage,
            )
        )
        advantage = advantage.masked_fill(importance == 0.0, 0.0)
        ratio = (label_logp(hidden.detach(), head, batch.labels) - old).exp()
        ratio = ratio.masked_fill(advantage == 0.0, 1.0)
        plain = ratio * advantage
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * advantage
        importance = self.factor * importance
        weights = importance * plain * (plain <= clipped)
        moved = chunked_loss(_cross_entropy, hidden, head, batch.labels, None, weights=weights)
        surrogate = -(importance * torch.minimum(plain, clipped)).sum()
        # The gradient of the weighted cross-entropy, with the value of the surrogate.
        return single_step + moved - moved.detach() + surrogate


class PolicyGradient(Sequences):
    """Samples for several batches at a time and trains on each of them once.

    Without dropout, as MiniLLM does: the ratio compares two passes, and before the first update
    they are the same.
    """

    def __init__(self, job: Job, student: TrainState) -> None:
        super().__init__(job, student)
        self.rollout: Rollout | None = None

    def batch(self, step: int) -> GlobalBatch:
        generated = 0
        many, size = int(self.params.number("rollout_steps")), self.job.recipe.batch
        if self.rollout is None or step >= self.rollout.first + many:
            self.rollout = self._roll_out(step, many)
            generated = int(self.rollout.data.response_lengths.sum())
        begin = (step - self.rollout.first) * size
        rows = torch.arange(begin, begin + size)
        data = self.rollout.data
        portion = PolicyPortion(
            data,
            rows,
            self.on_samples,
            self.live,
            self.rollout.importance,
            self.rollout,
            self.params.number("clip"),
            self.job.loss.factor,
        )
        return GlobalBatch([portion], int(data.response_lengths[rows].sum()), generated)

    def state(self) -> dict[str, Tensor]:
        rollout = self.rollout
        if rollout is None:
            return {}
        return rollout.data.arrays() | {
            "first": torch.tensor(rollout.first),
            "student_logp": rollout.student_logp,
            "importance": rollout.importance,
            "advantage": rollout.advantage,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if "first" in state:
            self.rollout = Rollout(
                int(state["first"]),
                Encoded.from_arrays(state),
                state["student_logp"],
                state["importance"],
                state["advantage"],
            )

    def _roll_out(self, first: int, many: int) -> Rollout:
        mix = self.params.number("teacher_mix")
        steps = range(first, min(first + many, self.job.recipe.steps))
        rows = torch.cat([self.rows(step) for step in steps])
        data = self.sample(rows, first, teacher_mix=mix)
        student_logp, teacher_logp = self._score(data)
        sampled_with = torch.logaddexp(
            teacher_logp + torch.tensor(mix).log(), student_logp + torch.tensor(1.0 - mix).log()
        )
        lengths = data.response_lengths.tolist()
        rewards = torch.split(teacher_logp - student_logp, lengths)
        gamma = self.params.number("gamma")
        return Rollout(
            first,
            data,
            student_logp,
            (student_logp - sampled_with).exp(),
            torch.cat([rewards_to_come(reward, gamma) for reward in rewards]),
        )

    @torch.no_grad()
    def _score(self, data: Encoded) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the sampled tokens under student and teacher, in order."""
        assert self.live is not None
        model, head = self.student.model, self.student.head
        student, teacher = [], []
        for rows in torch.split(torch.arange(len(data)), ROWS):
            device = model.device
            batch = collate(data, rows).to(device)
            side = self.live.batch(data, rows)
            with mixed_precision(device):  # as in the loop: the first ratio is 1
                hidden = hidden_states(model, batch.tokens, batch.positions)
                student.append(label_logp(hidden, head, batch.labels).cpu())
                teacher.append(label_logp(side.hidden, side.head, batch.labels).cpu())
        return torch.cat(student), torch.cat(teacher)


def rewards_to_come(rewards: Tensor, gamma: float) -> Tensor:
    """The discounted sum of the rewards after each token, over the number of those tokens.

    The token's own reward is the single-step term's. Source: MiniLLM, Eq. 5 and Algorithm 1
    (length normalisation: here by exactly the number of later tokens); the discount is the
    released code's.

    Args:
        rewards: log p(y) - log q(y) of a response's tokens, [T].
        gamma: discount a token.

    Returns:
        [T]; 0 for the last token.
    """
    advantage = torch.zeros_like(rewards)
    total = 0.0
    for token in range(len(rewards) - 2, -1, -1):
        later = gamma * total if gamma else 0.0
        total = float(rewards[token + 1]) + later
        advantage[token] = total / (len(rewards) - 1 - token)
    return advantage


def _cross_entropy(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
    logp = torch.log_softmax(student_logits, dim=-1)
    return -logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
