"""Which rows make up the global batch of a step, and how a batch becomes padded tensors.

Order is a function of (suite, seed, step) alone: not of the objective, the micro-batch size or the
number of processes. That is what makes comparisons paired.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.base.seeds import derive
from kdbench.data.encode import Encoded


def batch_rows(rows: int, batch: int, step: int, *, suite: str, seed: int) -> Tensor:
    """Row numbers of the global batch of a step (counted from 0), [batch].

    The epochs' permutations stand one after another; a batch may reach over their border.
    """
    first = step * batch
    epochs = range(first // rows, (first + batch - 1) // rows + 1)
    order = torch.cat([_permutation(rows, suite, seed, epoch) for epoch in epochs])
    offset = first - epochs[0] * rows
    return order[offset : offset + batch]


def _permutation(rows: int, suite: str, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive("order", suite, seed, epoch))
    return torch.randperm(rows, generator=generator)


@dataclass(frozen=True)
class MicroBatch:
    """Right-padded sequences of similar length, trimmed to the longest."""

    rows: Tensor
    """Row numbers in the split, [rows]."""
    tokens: Tensor
    """[rows, length]; padding is 0 and, in a causal model, seen by padding only."""
    positions: Tensor
    """Flat positions in [rows * length] whose next token belongs to a response, [N]."""
    labels: Tensor
    """Those next tokens, [N]."""

    def to(self, device: torch.device) -> "MicroBatch":
        """On a device, but for `rows`, which index what stays in the machine's memory."""
        moved = (to_device(part, device) for part in (self.tokens, self.positions, self.labels))
        return MicroBatch(self.rows, *moved)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a GPU fetches it from pinned memory, and nobody waits for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def micro_batches(data: Encoded, rows: Tensor, size: int) -> Iterator[MicroBatch]:
    """Splits a global batch into micro-batches of at most `size` rows, sorted by length."""
    by_length = rows[torch.argsort(data.lengths[rows], stable=True)]
    for part in torch.split(by_length, size):
        yield collate(data, part)


def collate(data: Encoded, rows: Tensor) -> MicroBatch:
    """The padded tensors of some rows."""
    lengths, prompts = data.lengths[rows], data.prompt_lengths[rows]
    width = int(lengths.max())
    column = torch.arange(width)
    inside = column < lengths[:, None]
    flat = torch.where(inside, data.starts[rows][:, None] + column, 0)
    tokens = torch.where(inside, data.tokens[flat], 0)
    predicts_response = (column >= prompts[:, None] - 1) & (column < lengths[:, None] - 1)
    positions = predicts_response.flatten().nonzero().squeeze(-1)
    return MicroBatch(rows, tokens, positions, tokens.flatten()[positions + 1])


def response_indices(data: Encoded, rows: Tensor) -> Tensor:
    """Where the response tokens of some rows stand among those of the whole split, [N].

    The order is that of `collate(data, rows).labels`.
    """
    lengths = data.response_lengths
    ends = lengths.cumsum(0)
    spans = zip((ends - lengths)[rows].tolist(), ends[rows].tolist(), strict=True)
    return torch.cat([torch.arange(start, end) for start, end in spans])
