"""The sources of sequences, from the teacher's responses to the student's own.

Every random choice is a function of (suite, seed, step); what else a source remembers is in its
state, which goes into the checkpoint. Sampled responses keep their end token and are labelled like
gold ones; the cross-entropy on gold responses never applies to them. `kdbench.variants.sequences`
says what each of them is.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdbench.data.encode import Encoded
from kdbench.train.policy import PolicyGradient
from kdbench.train.setting import GlobalBatch, Portion, Setting, Source
from kdbench.variants.variant import SourceVariant


def make_source(setting: Setting) -> Source:
    """The source that a variant names."""
    sequences = setting.variant.sequences
    classes: dict[str, type[Source]] = {
        "dataset": Source,
        "teacher": TeacherAnswers,
        "student": StudentSamples,
        "mixed": Mixed,
        "adaptive": Adaptive,
        "contrastive": Contrastive,
        "policy-gradient": PolicyGradient,
    }
    return classes[sequences.name](sequences, setting)


class TeacherAnswers(Source):
    def batch(self, step: int) -> GlobalBatch:
        setting = self.setting
        assert setting.answers is not None
        rows = setting.rows(step)
        return GlobalBatch.by_tokens(
            Portion(setting.answers, rows, setting.on_gold, setting.answers_cache)
        )


class StudentSamples(Source):
    def batch(self, step: int) -> GlobalBatch:
        data = self.fresh(step)
        return self.samples(data, generated=_response_tokens(data))


class Mixed(StudentSamples):
    def batch(self, step: int) -> GlobalBatch:
        chance = self.setting.random("mixed", step).random()
        return (
            super().batch(step) if chance < self.params.number("student_share") else self.gold(step)
        )


class Adaptive(Source):
    def __init__(self, params: SourceVariant, setting: Setting) -> None:
        super().__init__(params, setting)
        self.threshold = params.number("threshold")
        self.reference = float("nan")
        self.buffer: list[tuple[list[int], list[int]]] = []

    def begin(self, measure: Callable[[], Mapping[str, float]]) -> None:
        self.reference = measure()["dev_nll"]

    def batch(self, step: int) -> GlobalBatch:
        setting, capacity = self.setting, int(self.params.number("capacity"))
        chance = setting.random("adaptive", step).random()
        if chance >= self.threshold:
            return self.gold(step)
        decayed = self.threshold * (1.0 - step / setting.steps)
        if chance < decayed or len(self.buffer) < capacity:
            data = self.fresh(step)
            pairs = [(data.prompt(row), data.response(row)) for row in range(len(data))]
            self.buffer = [*self.buffer, *pairs][-capacity:]
            return self.samples(data, generated=_response_tokens(data))
        size = min(setting.batch, len(self.buffer))
        drawn = setting.random("replay", step).choice(len(self.buffer), size, replace=False)
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


class Contrastive(Source):
    def __init__(self, params: SourceVariant, setting: Setting) -> None:
        super().__init__(params, setting)
        assert setting.answers is not None
        self.answer_weights = (2.0 - params.number("student_share")) * _per_sequence(
            setting.answers
        )

    def batch(self, step: int) -> GlobalBatch:
        setting, share = self.setting, self.params.number("student_share")
        assert setting.answers is not None
        assert setting.on_student is not None
        rows, own = setting.rows(step), self.fresh(step)
        theirs = Portion(
            setting.answers,
            rows,
            setting.on_gold,
            setting.answers_cache,
            self.answer_weights,
        )
        ours = Portion(
            own,
            torch.arange(len(own)),
            setting.on_student,
            setting.live,
            share * _per_sequence(own),
        )
        return GlobalBatch([theirs, ours], len(rows), _response_tokens(own))


def _response_tokens(data: Encoded) -> int:
    return int(data.response_lengths.sum())


def _per_sequence(data: Encoded) -> Tensor:
    """Weights that make a sum over tokens a sum over sequences of means."""
    lengths = data.response_lengths
    return torch.repeat_interleave(1.0 / lengths, lengths)
