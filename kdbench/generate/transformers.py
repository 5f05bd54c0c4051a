"""The transformers backend: batches of prompts through the model's own forward pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kdbench.generate import Answer
from kdbench.generate.ngrams import NGrams, ban
from kdbench.generate.student import Student, answer_room, read_student
from kdbench.models import model
from kdbench.models.sampling import Choose, decode, draw, streams_of

BATCH = 64


class TransformersGenerator:
    """See `kdbench.generate.Generator`."""

    def __init__(self, max_length: int, no_repeat_ngram_size: int) -> None:
        self._max_length = max_length
        self._ngram_size = no_repeat_ngram_size
        self._model: Any = None
        self._student: Student | None = None

    def load(self, model_dir: Path, *, trust_remote_code: bool = False) -> None:
        self._student = read_student(
            model_dir, self._max_length, trust_remote_code=trust_remote_code
        )
        self._model = model.load(
            model_dir, model.pick_device(), own_dtype=True, trust_remote_code=trust_remote_code
        ).eval()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[Answer]:
        if self._student is None:
            raise RuntimeError("load a student before generating")
        room = answer_room(prompts, max_new_tokens, self._max_length)
        # Prompts of one length together: less padding.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            sequences = [
                NGrams(self._ngram_size, prompts[row]) for row in batch if self._ngram_size
            ]
            generated = decode(
                [self._model],
                [prompts[row] for row in batch],
                [room[row] for row in batch],
                _chooser(temperature, top_p, [seeds[row] for row in batch], sequences),
                vocabulary=self._student.vocabulary,
                end_ids=self._student.eos_ids,
                max_length=self._max_length,
            )
            answers.update(zip(batch, map(self._student.answer, generated), strict=True))
        return [answers[row] for row in range(len(prompts))]

    def close(self) -> None:
        self._model = None
        self._student = None


def _chooser(
    temperature: float, top_p: float, seeds: Sequence[int], sequences: Sequence[NGrams]
) -> Choose:
    """Of the rows of one batch; `sequences` is empty where n-grams may repeat."""
    streams, by_row = streams_of(seeds), dict(enumerate(sequences))

    def choose(logits: list[Tensor]) -> Tensor:
        (of_student,) = logits
        ban(of_student, by_row)
        tokens = pick(of_student)
        for row, ngrams in by_row.items():
            ngrams.extend([int(tokens[row])])
        return tokens

    def pick(of_student: Tensor) -> Tensor:
        if temperature == 0:
            return of_student.argmax(dim=-1)
        return draw(nucleus((of_student / temperature).softmax(dim=-1), top_p), streams)

    return choose


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the smallest set of most likely tokens that holds at least `top_p`.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    if top_p >= 1:
        return probabilities
    ordered, tokens = probabilities.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities.masked_fill(outside.scatter(1, tokens, outside), 0.0)
