"""What a step trains on, and what a source of sequences has at hand to make it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdbench.base.seeds import derive
from kdbench.data.batches import MicroBatch, batch_rows, response_indices, to_device
from kdbench.data.encode import Encoded
from kdbench.head.chunked import PerToken, Teacher, chunked_loss
from kdbench.head.teacher import LiveTeacher
from kdbench.models.model import Head
from kdbench.models.sampling import decode, draw, streams_of
from kdbench.variants.variant import SourceVariant, Variant


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


@dataclass(frozen=True)
class Setting:
    """What a source has at hand."""

    variant: Variant
    suite: str
    seed: int
    steps: int
    batch: int
    gold: Encoded
    cache: TeacherSide | None
    """The teacher on the gold responses."""
    answers: Encoded | None
    """The teacher's own responses, row by row."""
    answers_cache: TeacherSide | None
    model: Any
    """The student."""
    live: LiveTeacher | None
    on_gold: PerToken
    on_samples: PerToken
    """Without the cross-entropy term."""
    factor: float
    """Of the objective, in every term that stands for it."""
    on_student: PerToken | None
    """The contrastive source's second divergence, on samples."""
    head: Head
    vocabulary: int
    end_ids: frozenset[int]
    max_new_tokens: int
    max_length: int

    def rows(self, step: int) -> Tensor:
        """Row numbers of the global batch of a step: the same for every source."""
        return batch_rows(len(self.gold), self.batch, step, suite=self.suite, seed=self.seed)

    def random(self, what: str, step: int) -> np.random.Generator:
        """A random stream of its own for one choice in one step."""
        return np.random.default_rng(derive(what, self.suite, self.seed, step))

    def sample(self, rows: Tensor, step: int, teacher_mix: float = 0.0) -> Encoded:
        """Responses of the current student to the prompts of some rows of the gold data.

        With `teacher_mix`, each token is drawn from that share of the teacher's distribution and
        the rest of the student's. An answer depends on its place in the batch, not on the others.
        """
        prompts = [self.gold.prompt(row) for row in rows.tolist()]
        room = [min(self.max_new_tokens, self.max_length - len(prompt)) for prompt in prompts]
        seeds = [derive("rollout", self.suite, self.seed, step, i) for i in range(len(prompts))]
        streams, models = streams_of(seeds), [self.model]
        if teacher_mix > 0.0:
            assert self.live is not None
            self.live.passes += len(rows)
            models.append(self.live.model)

        def choose(logits: list[Tensor]) -> Tensor:
            student, *teacher = (part.softmax(dim=-1) for part in logits)
            mixed = torch.lerp(student, teacher[0], teacher_mix) if teacher else student
            return draw(mixed, streams)

        self.model.eval()
        responses = decode(
            models,
            prompts,
            room,
            choose,
            vocabulary=self.vocabulary,
            end_ids=self.end_ids,
            max_length=self.max_length,
        )
        return Encoded.of(list(zip(prompts, responses, strict=True)))


class Source:
    """The gold responses, and what the other sources have in common."""

    def __init__(self, params: SourceVariant, setting: Setting) -> None:
        self.params, self.setting = params, setting

    def begin(self, measure: Callable[[], Mapping[str, float]]) -> None:
        """Called before the first step; `measure` gives the diagnostics of the initial student."""

    def batch(self, step: int) -> GlobalBatch:
        """What to train on in a step, counted from 0."""
        return self.gold(step)

    def measured(self, row: Mapping[str, float]) -> None:
        """Told the diagnostics on dev whenever they are taken."""

    def state(self) -> dict[str, Tensor]:
        """What the source remembers, for the checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""

    def gold(self, step: int) -> GlobalBatch:
        """The gold responses of a step's rows."""
        setting = self.setting
        portion = Portion(setting.gold, setting.rows(step), setting.on_gold, setting.cache)
        return GlobalBatch.by_tokens(portion)

    def samples(self, data: Encoded, *, generated: int) -> GlobalBatch:
        """The student's own responses, read by the live teacher."""
        setting = self.setting
        portion = Portion(data, torch.arange(len(data)), setting.on_samples, setting.live)
        return GlobalBatch.by_tokens(portion, generated)

    def fresh(self, step: int) -> Encoded:
        """New responses of the student to the prompts of a step's rows."""
        return self.setting.sample(self.setting.rows(step), step)
