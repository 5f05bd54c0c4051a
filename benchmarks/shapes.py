"""The shapes that are measured: random models and sequences of the lengths of real ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdbench.config.schema import Architecture
from kdbench.data.batches import collate
from kdbench.data.encode import Encoded
from kdbench.head.chunked import Teacher, chunk_size
from kdbench.head.teacher import LiveTeacher, TeacherCache
from kdbench.models.model import Head, build, head_of, hidden_states, pick_device


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


class Bench:
    """The models and the batch of a shape, with the teacher live and cached."""

    def __init__(self, shape: BenchShape) -> None:
        self.shape, self.rows = shape, torch.arange(len(shape.prompts))
        self.student = random_model(shape.vocabulary, shape.student, "student")
        self.teacher = random_model(shape.vocabulary, shape.teacher, "teacher")
        self.data, device = random_rows(shape, 1), self.teacher.device
        self.live = LiveTeacher(self.teacher, shape.vocabulary)
        batch = collate(self.data, self.rows).to(device)
        with torch.no_grad():
            hidden = hidden_states(self.teacher, batch.tokens, batch.positions)
        self.cache = TeacherCache(hidden.cpu(), head_of(self.teacher, shape.vocabulary))


def products(
    head: Head, tokens: int, teacher: Teacher | None, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """A floor: the matrix products of both heads, in kdbench's chunks and into buffers it keeps.

    Returns:
        From hidden states to d(hidden); logits and d(weight) are formed and not given back.
    """
    weight = head.weight.detach().to(dtype)
    logits = weight.new_empty(min(chunk_size(head), tokens), len(weight))
    d_hidden, d_weight = weight.new_empty(tokens, weight.shape[1]), torch.empty_like(weight)
    if teacher is not None:
        beside, other = teacher.hidden.to(dtype), teacher.head.weight.detach().to(dtype)

    def call(hidden: Tensor) -> Tensor:
        d_weight.zero_()
        for start in range(0, tokens, len(logits)):
            part = slice(start, min(start + len(logits), tokens))
            buffer = logits[: part.stop - start]
            if teacher is not None:
                torch.mm(beside[part], other.T, out=buffer)
            torch.mm(hidden[part], weight.T, out=buffer)
            torch.mm(buffer, weight, out=d_hidden[part])
            d_weight.addmm_(buffer.T, hidden[part])
        return d_hidden

    return call


def random_model(vocabulary: int, architecture: Architecture, name: str) -> Any:
    """A Llama with random weights, where the first GPU is, if there is one."""
    return build(architecture, vocabulary, 0, seed_key=f"benchmarks/{name}").to(pick_device())


def random_rows(shape: BenchShape, batches: int) -> Encoded:
    """Random token ids in rows of the shape's lengths, so many batches of them."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(1, shape.vocabulary, (length,), generator=generator).tolist()

    lengths = list(zip(shape.prompts, shape.responses, strict=True)) * batches
    return Encoded.of([(ids(prompt), ids(response)) for prompt, response in lengths])
