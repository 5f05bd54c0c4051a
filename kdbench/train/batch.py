"""What a step trains on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kdbench.data.batches import MicroBatch, response_indices, to_device
from kdbench.data.encode import Encoded
from kdbench.head.chunked import PerToken, Teacher, chunked_loss
from kdbench.models.model import Head


class TeacherSide(Protocol):
    """Gives the teacher's hidden states: from the cache, or live."""

    def batch(self, data: Encoded, rows: Tensor) -> Teacher: ...


@dataclass(frozen=True)
class Portion:
    """Sequences of one kind in a global batch, and the loss on them.

    Attributes:
        rows: row numbers in `data`.
        teacher: None where the objective does not look at the teacher.
        weights: one a response token of `data`; 1 where left out.
    """

    data: Encoded
    rows: Tensor
    per_token: PerToken
    teacher: TeacherSide | None
    weights: Tensor | None = None

    def loss(
        self, hidden: Tensor, head: Head, batch: MicroBatch, teacher: Teacher | None
    ) -> Tensor:
        """The weighted sum over the tokens of a micro-batch, which lies where `hidden` does."""
        weights = (
            None if self.weights is None else self.of_batch(self.weights, batch, hidden.device)
        )
        return chunked_loss(self.per_token, hidden, head, batch.labels, teacher, weights=weights)

    def of_batch(self, values: Tensor, batch: MicroBatch, device: torch.device) -> Tensor:
        """A micro-batch's part of something that has one value a response token."""
        return to_device(values[response_indices(self.data, batch.rows)], device)


@dataclass(frozen=True)
class GlobalBatch:
    """All that a step trains on; the summed loss is divided by `normaliser`."""

    portions: Sequence[Portion]
    normaliser: float
    generated: int = 0
    """Tokens sampled for it."""

    @staticmethod
    def by_tokens(portion: Portion, generated: int = 0) -> "GlobalBatch":
        """One portion; its sum is divided by its response tokens."""
        tokens = int(portion.data.response_lengths[portion.rows].sum())
        return GlobalBatch([portion], tokens, generated)

    @property
    def tokens(self) -> int:
        """Response tokens of the student's forward pass."""
        return sum(int(part.data.response_lengths[part.rows].sum()) for part in self.portions)
