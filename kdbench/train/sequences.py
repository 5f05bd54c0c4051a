"""The sources of sequences, from the teacher's responses to the student's own.

What a source remembers is in its state, which goes into the checkpoint. Sampled responses keep
their end token and are labelled like gold ones; the cross-entropy on gold responses never applies
to them. `kdbench.variants.sequences` says what each of them is.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdbench.data.encode import Encoded
from kdbench.train.batch import GlobalBatch, Portion, Sequences
from kdbench.train.job import Job
from kdbench.train.policy import PolicyGradient
from kdbench.train.state import TrainState
from kdbench.variants.variant import Variant


def open_sequences(job: Job, student: TrainState) -> Sequences:
    """The sequences that a job's variant names, with the teacher's side of them."""
    classes: dict[str, type[Sequences]] = {
        "dataset": Sequences,
        "teacher": TeacherAnswers,
        "student": StudentSamples,
        "mixed": Mixed,
        "adaptive": Adaptive,
        "contrastive": Contrastive,
        "policy-gradient": PolicyGradient,
    }
    return classes[job.variant.sequences.name](job, student)


class TeacherAnswers(Sequences):
    def __init__(self, job: Job, student: TrainState) -> None:
        super().__init__(job, student)
        assert job.answers is not None
        self.answers = Encoded.load(job.answers / "train.safetensors")
        self.answers_cache = job.open_cache(job.answers / "cache", student.model.device)

    def batch(self, step: int) -> GlobalBatch:
        rows, per_token = self.rows(step), self.student.per_token
        return GlobalBatch.by_tokens(Portion(self.answers, rows, per_token, self.answers_cache))


class StudentSamples(Sequences):
    def batch(self, step: int) -> GlobalBatch:
        data = self.fresh(step)
        return self.samples(data, generated=_response_tokens(data))


class Mixed(StudentSamples):
    def batch(self, step: int) -> GlobalBatch:
        chance = self.random("mixed", step).random()
        return (
            super().batch(step) if chance < self.params.number("student_share") else self.gold(step)
        )


class Adaptive(Sequences):
    def __init__(self, job: Job, student: TrainState) -> None:
        super().__init__(job, student)
        self.threshold = self.params.number("threshold")
        self.reference = float("nan")
        self.buffer: list[tuple[list[int], list[int]]] = []

    def begin(self, measure: Callable[[], Mapping[str, float]]) -> None:
        self.reference = measure()["dev_nll"]

    def batch(self, step: int) -> GlobalBatch:
        recipe, capacity = self.job.recipe, int(self.params.number("capacity"))
        chance = self.random("adaptive", step).random()
        if chance >= self.threshold:
            return self.gold(step)
        decayed = self.threshold * (1.0 - step / recipe.steps)
        if chance < decayed or len(self.buffer) < capacity:
            data = self.fresh(step)
            pairs = [(data.prompt(row), data.response(row)) for row in range(len(data))]
            self.buffer = [*self.buffer, *pairs][-capacity:]
            return self.samples(data, generated=_response_tokens(data))
        size = min(recipe.batch, len(self.buffer))
        drawn = self.random("replay", step).choice(len(self.buffer), size, replace=False)
        return self.samples(Encoded.of([self.buffer[index] for index in drawn]), generated=0)

    def measured(self, row: Mapping[str, float]) -> None:
        if row["dev_nll"] >= self.reference + self.params.number("tolerance"):
            self.threshold = min(1.0, self.threshold + self.params.number("increment"))
            self.reference = row["dev_nll"]

    def state(self) -> dict[str, Tensor]:
        numbers = {"threshold": self.threshold, "reference": self.reference}
        tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in numbers.items()}
        return tensors | (Encoded.of(self.buffer).arrays() if self.buffer else {})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.threshold, self.reference = float(state["threshold"]), float(state["reference"])
        if "tokens" in state:
            data = Encoded.from_arrays(state)
            self.buffer = [(data.prompt(row), data.response(row)) for row in range(len(data))]


class Contrastive(TeacherAnswers):
    def __init__(self, job: Job, student: TrainState) -> None:
        super().__init__(job, student)
        self.share = self.params.number("student_share")
        self.answer_weights = (2.0 - self.share) * _per_sequence(self.answers)
        divergence = self.params.params["student_divergence"]
        assert isinstance(divergence, Variant)
        self.on_student = job.per_sampled_token(divergence)

    def batch(self, step: int) -> GlobalBatch:
        rows, own = self.rows(step), self.fresh(step)
        theirs = Portion(
            self.answers, rows, self.student.per_token, self.answers_cache, self.answer_weights
        )
        weights = self.share * _per_sequence(own)
        ours = Portion(own, torch.arange(len(own)), self.on_student, self.live, weights)
        return GlobalBatch([theirs, ours], len(rows), _response_tokens(own))


def _response_tokens(data: Encoded) -> int:
    return int(data.response_lengths.sum())


def _per_sequence(data: Encoded) -> Tensor:
    """Weights that make a sum over tokens a sum over sequences of means."""
    lengths = data.response_lengths
    return torch.repeat_interleave(1.0 / lengths, lengths)
