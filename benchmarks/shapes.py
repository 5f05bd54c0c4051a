"""The shapes that are measured: random models and sequences of the lengths of real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdbench.config.schema import Architecture
from kdbench.data.batches import collate
from kdbench.data.encode import Encoded
from kdbench.head.teacher import LiveTeacher, TeacherCache
from kdbench.models.model import build, head_of, hidden_states, pick_device


@dataclass(frozen=True)
class BenchShape:
    """A vocabulary, two models, and the prompts and responses of one batch in tokens."""

    vocabulary: int
    student: Architecture
    teacher: Architecture
    prompts: tuple[int, ...]
    responses: tuple[int, ...]


DOLLY = BenchShape(
    50_257,
    Architecture(width=256, layers=4, heads=4, mlp=704, init_std=0.06),
    Architecture(width=512, layers=8, heads=8, mlp=1376, init_std=0.06),
    prompts=(66, 52, 74, 48, 126, 60, 90, 55),
    responses=(12, 289, 25, 180, 41, 125, 60, 88),
)
"""16M and 51M parameters; 1,391 tokens, 820 of them of responses."""

EMBEDDED = BenchShape(
    971,
    Architecture(width=64, layers=1, heads=2, mlp=192, init_std=0.06),
    Architecture(width=128, layers=2, heads=4, mlp=384, init_std=0.06),
    prompts=(13, 26, 14, 31, 18, 22, 29, 16, 24, 13, 33, 20, 27, 15, 30, 25),
    responses=(8, 13, 22, 11, 14, 16, 9, 18, 12, 27, 10, 13, 11, 15, 8, 14),
)
"""The models of the suite `instruct` and a batch like its own."""

TINY = BenchShape(
    97,
    Architecture(width=16, layers=1, heads=1, mlp=32, init_std=0.06),
    Architecture(width=32, layers=1, heads=1, mlp=64, init_std=0.06),
    prompts=(3, 5, 4),
    responses=(6, 2, 9),
)
"""For `--smoke`."""


@dataclass(frozen=True)
class Bench:
    """The models and the batch of a shape, with the teacher live and cached."""

    shape: BenchShape

    @property
    def rows(self) -> Tensor:
        """The rows of the batch."""
        return torch.arange(len(self.shape.prompts))

    @cached_property
    def student(self) -> Any:
        return random_model(self.shape.vocabulary, self.shape.student, "student")

    @cached_property
    def teacher(self) -> Any:
        return random_model(self.shape.vocabulary, self.shape.teacher, "teacher").eval()

    @cached_property
    def data(self) -> Encoded:
        return random_rows(self.shape, 1)

    @cached_property
    def cache(self) -> TeacherCache:
        batch, device = collate(self.data, self.rows), self.teacher.device
        with torch.no_grad():
            hidden = hidden_states(
                self.teacher, batch.tokens.to(device), batch.positions.to(device)
            )
        return TeacherCache(hidden.cpu(), head_of(self.teacher, self.shape.vocabulary))

    @cached_property
    def live(self) -> LiveTeacher:
        return LiveTeacher(self.teacher, self.shape.vocabulary)


@dataclass(frozen=True)
class ProductBuffers:
    """Where the matrix products of both heads go, chunk by chunk: what a floor consists of."""

    logits: Tensor
    d_hidden: Tensor
    d_weight: Tensor

    @classmethod
    def of(cls, weight: Tensor, tokens: int, chunk: int) -> "ProductBuffers":
        """For so many tokens, in chunks of at most so many."""
        logits = weight.new_empty(min(chunk, tokens), len(weight))
        d_hidden = weight.new_empty(tokens, weight.shape[1])
        return cls(logits, d_hidden, torch.empty_like(weight))

    def fill(self, hidden: Tensor, weight: Tensor, other: tuple[Tensor, Tensor] | None) -> None:
        """Both logits, d(hidden) and d(weight); `other` is the teacher's hidden states and head."""
        self.d_weight.zero_()
        size = len(self.logits)
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            buffer = self.logits[: part.stop - start]
            if other is not None:
                torch.mm(other[0][part], other[1].T, out=buffer)
            torch.mm(hidden[part], weight.T, out=buffer)
            torch.mm(buffer, weight, out=self.d_hidden[part])
            self.d_weight.addmm_(buffer.T, hidden[part])


def random_model(vocabulary: int, architecture: Architecture, name: str) -> Any:
    """A Llama with random weights, where the first GPU is, if there is one."""
    return build(architecture, vocabulary, 0, seed_key=f"benchmarks/{name}").to(pick_device())


def random_rows(shape: BenchShape, batches: int) -> Encoded:
    """Random token ids in rows of the shape's lengths, so many batches of them."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        drawn: list[int] = torch.randint(
            1, shape.vocabulary, (length,), generator=generator
        ).tolist()
        return drawn

    lengths = list(zip(shape.prompts, shape.responses, strict=True)) * batches
    return Encoded.of([(ids(prompt), ids(response)) for prompt, response in lengths])


@contextmanager
def half_precision(device: torch.device) -> Iterator[None]:
    """bfloat16 on a GPU, as in the training loop; float32 elsewhere."""
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        yield
