"""What a step trains on, and the gold responses, from which every source of sequences begins.

Every random choice is a function of (seed key, seed, step).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdbench.base.seeds import derive
from kdbench.data.batches import MicroBatch, batch_rows, response_indices, to_device
from kdbench.data.encode import Encoded
from kdbench.head.chunked import PerToken, Teacher, chunked_loss
from kdbench.models.model import Head
from kdbench.models.sampling import decode, draw, streams_of
from kdbench.train.job import Job
from kdbench.train.state import TrainState


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
        weights = self.weights_of(batch, hidden.device)
        return chunked_loss(self.per_token, hidden, head, batch.labels, teacher, weights=weights)

    def teacher_side(self, batch: MicroBatch) -> Teacher | None:
        return None if self.teacher is None else self.teacher.batch(self.data, batch.rows)

    def weights_of(self, batch: MicroBatch, device: torch.device) -> Tensor | None:
        return None if self.weights is None else self.of_batch(self.weights, batch, device)

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


class Sequences:
    """The gold responses; the other sources train on something else in their place.

    Attributes:
        job: what is trained.
        student: as it changes.
        params: the source's parameters.
        live: the teacher's body, where it reads the student's samples.
    """

    def __init__(self, job: Job, student: TrainState) -> None:
        device = student.model.device
        self.job, self.student, self.params = job, student, job.variant.sequences
        self.cache = job.open_cache(job.teacher_cache, device)
        self.live = job.open_live_teacher(device)
        sampled = job.loss.sft and self.params.samples
        self.on_samples = (
            job.per_sampled_token(job.variant, student.objective) if sampled else student.per_token
        )

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

    def rows(self, step: int) -> Tensor:
        """Row numbers of the global batch of a step: the same for every source."""
        job = self.job
        return batch_rows(len(job.gold), job.recipe.batch, step, suite=job.seed_key, seed=job.seed)

    def random(self, what: str, step: int) -> np.random.Generator:
        """A random stream of its own for one choice in one step."""
        return np.random.default_rng(derive(what, self.job.seed_key, self.job.seed, step))

    def gold(self, step: int) -> GlobalBatch:
        """The gold responses of a step's rows."""
        portion = Portion(self.job.gold, self.rows(step), self.student.per_token, self.cache)
        return GlobalBatch.by_tokens(portion)

    def samples(self, data: Encoded, *, generated: int) -> GlobalBatch:
        """The student's own responses, read by the live teacher."""
        portion = Portion(data, torch.arange(len(data)), self.on_samples, self.live)
        return GlobalBatch.by_tokens(portion, generated)

    def fresh(self, step: int) -> Encoded:
        """New responses of the student to the prompts of a step's rows."""
        return self.sample(self.rows(step), step)

    def sample(self, rows: Tensor, step: int, teacher_mix: float = 0.0) -> Encoded:
        """Responses of the current student to the prompts of some rows of the gold data.

        With `teacher_mix`, each token is drawn from that share of the teacher's distribution and
        the rest of the student's. An answer depends on its place in the batch, not on the others.
        """
        job, model = self.job, self.student.model
        prompts = [job.gold.prompt(row) for row in rows.tolist()]
        room = [min(job.max_new_tokens, job.max_length - len(prompt)) for prompt in prompts]
        seeds = [derive("rollout", job.seed_key, job.seed, step, i) for i in range(len(prompts))]
        streams, models = streams_of(seeds), [model]
        if teacher_mix > 0.0:
            assert self.live is not None
            self.live.passes += len(rows)
            models.append(self.live.model)

        def choose(logits: list[Tensor]) -> Tensor:
            student, *teacher = (part.softmax(dim=-1) for part in logits)
            mixed = torch.lerp(student, teacher[0], teacher_mix) if teacher else student
            return draw(mixed, streams)

        model.eval()
        responses = decode(
            models,
            prompts,
            room,
            choose,
            vocabulary=job.vocabulary,
            end_ids=job.end_ids,
            max_length=job.max_length,
        )
        return Encoded.of(list(zip(prompts, responses, strict=True)))
