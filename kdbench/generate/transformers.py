"""The transformers backend: a short batched loop over the model's own forward pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench import models
from kdbench.generate import Answer
from kdbench.generate.student import Student, answer_room, read_student

BATCH = 64


class TransformersGenerator:
    """See `kdbench.generate.Generator`."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._model: Any = None
        self._student: Student | None = None

    def load(self, model_dir: Path) -> None:
        self._student = read_student(model_dir, self._max_length)
        self._model = models.load(model_dir, models.pick_device(), own_dtype=True).eval()

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
        rows = list(zip(prompts, room, seeds, strict=True))
        # Prompts of one length together: less padding.
        order = sorted(range(len(rows)), key=lambda row: len(prompts[row]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            generated = _decode(
                self._model,
                [rows[row] for row in batch],
                self._student,
                temperature,
                top_p,
                self._max_length,
            )
            answers.update(zip(batch, map(self._student.answer, generated), strict=True))
        return [answers[row] for row in range(len(rows))]

    def close(self) -> None:
        self._model = None
        self._student = None


@torch.inference_mode()
def _decode(
    model: Any,
    rows: Sequence[tuple[Sequence[int], int, int]],
    student: Student,
    temperature: float,
    top_p: float,
    max_length: int,
) -> list[list[int]]:
    """Tokens of one batch of (prompt, most new tokens, seed), each up to and with its end token."""
    device = model.device
    width = max(len(prompt) for prompt, _, _ in rows)
    padding = [width - len(prompt) for prompt, _, _ in rows]
    ids = torch.tensor(
        [[0] * pad + list(prompt) for pad, (prompt, _, _) in zip(padding, rows, strict=True)],
        device=device,
    )
    pads = torch.tensor(padding, device=device)[:, None]
    mask = (torch.arange(width, device=device) >= pads).long()
    positions = (torch.arange(width, device=device) - pads).clamp(min=0)
    # Drawn on the CPU, so that a seed means the same on every device.
    streams = [torch.Generator().manual_seed(seed) for _, _, seed in rows]
    generated: list[list[int]] = [[] for _ in rows]
    open_rows = [True] * len(rows)
    cache = None
    while True:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        logits = output.logits[:, -1, : student.vocabulary].float().cpu()
        tokens = _choose(logits, streams, temperature, top_p)
        for row, token in enumerate(tokens.tolist()):
            if open_rows[row]:
                generated[row].append(token)
                full = len(generated[row]) == rows[row][1]
                open_rows[row] = not full and token not in student.eos_ids
        if not any(open_rows):
            return generated
        ids = tokens[:, None].to(device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        # A finished row goes on with its batch; the model has no positions after the last.
        positions = (positions[:, -1:] + 1).clamp(max=max_length - 1)


def _choose(
    logits: Tensor, streams: Sequence[torch.Generator], temperature: float, top_p: float
) -> Tensor:
    """The next token of each row, from float32 logits [rows, vocabulary]."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = _nucleus((logits / temperature).softmax(dim=-1), top_p)
    # One uniform number a row and token: a row's stream is used the same way in every batch.
    uniform = torch.stack([torch.rand(1, generator=s, dtype=torch.float64) for s in streams])
    cumulative = probabilities.double().cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the smallest set of most likely tokens that holds at least `top_p`.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    if top_p >= 1:
        return probabilities
    ordered, tokens = probabilities.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities.masked_fill(outside.scatter(1, tokens, outside), 0.0)
