"""The teacher's pass, kept: its final hidden states at the response positions.

The full-vocabulary distribution is recomputed exactly by the teacher's head, from 1/30 to 1/100 of
the bytes of logits and without its body in memory. One cache serves every off-policy trial.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdbench.base import seal
from kdbench.base.errors import UserError
from kdbench.data.batches import MicroBatch, collate, response_indices, to_device
from kdbench.data.encode import Encoded
from kdbench.head.chunked import Teacher
from kdbench.models.model import Head, head_of, hidden_states, mixed_precision

ROWS = 16
"""Rows in a forward pass of the teacher."""
BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class TeacherCache:
    """Hidden states of a split's response tokens, [total response tokens, D], and the head."""

    hidden: Tensor
    head: Head
    blocks: "Blocks | None" = None
    """Checks what is read of a file; None for what was computed in this process."""

    def batch(self, data: Encoded, rows: Tensor) -> Teacher:
        """The teacher's side of some rows, in the order of `collate(data, rows).labels`.

        It lies on the head's device; the cache itself stays in the machine's memory.
        """
        indices = response_indices(data, rows)
        if self.blocks is not None:
            self.blocks.check(self.hidden, indices)
        hidden = self.hidden[indices]
        return Teacher(to_device(hidden, self.head.weight.device), self.head)


class Blocks:
    """Digests of a large file of hidden states, each compared when its rows are first read."""

    def __init__(self, path: Path, digests: Sequence[str]) -> None:
        self._path = path
        self._digests = digests
        self._checked = torch.zeros(len(digests), dtype=torch.bool)

    def check(self, hidden: Tensor, indices: Tensor) -> None:
        """Compares the blocks that hold some rows, as far as that is not done.

        Raises:
            UserError: a block is damaged; the cache has been removed, to be made again.
        """
        blocks = torch.unique(indices // rows_of_a_block(hidden))
        for block in blocks[~self._checked[blocks]].tolist():
            if block_digest(hidden, block) != self._digests[block]:
                seal.remove(self._path.parent)
                raise UserError(
                    f"{self._path}: damaged, its bytes are not those that were written; the cache "
                    "was removed: the same command makes it again"
                )
            self._checked[block] = True


def rows_of_a_block(hidden: Tensor) -> int:
    """Rows that share a digest: about four megabytes of them."""
    return max(1, BLOCK_BYTES // (hidden.shape[-1] * hidden.element_size()))


def block_digest(hidden: Tensor, block: int) -> str:
    """The xxh3 digest of one block of rows."""
    size = rows_of_a_block(hidden)
    rows = hidden[block * size : (block + 1) * size].contiguous()
    return xxhash.xxh3_128_hexdigest(rows.view(torch.uint8).numpy().data)


class LiveTeacher:
    """A teacher whose body reads every batch: for sequences that exist only once.

    Attributes:
        passes: sequences that went through the body so far.
    """

    def __init__(self, model: Any, vocabulary: int) -> None:
        self.model = model.eval()
        self.passes = 0
        self._head = head_of(model, vocabulary)

    @torch.no_grad()
    def batch(self, data: Encoded, rows: Tensor) -> Teacher:
        """The teacher's side of some rows, in the order of `collate(data, rows).labels`."""
        self.passes += len(rows)
        device = self.model.device
        batch = collate(data, rows).to(device)
        with mixed_precision(device):
            hidden = hidden_states(self.model, batch.tokens, batch.positions)
        return Teacher(hidden, self._head)


@torch.no_grad()
def fill(model: Any, vocabulary: int, splits: dict[str, Encoded], folder: Path) -> None:
    """Runs the teacher once over every split and writes `<split>.safetensors` and `head`.

    Each split's cache is then compared with a live pass over some of its rows.

    Raises:
        UserError: the cache and the live teacher disagree.
    """
    head = head_of(model, vocabulary)
    model.eval()
    with seal.sealed_folder(folder) as temporary:
        tensors = {"weight": head.weight.contiguous()}
        if head.bias is not None:
            tensors["bias"] = head.bias.contiguous()
        metadata = {"scale": repr(head.scale), "softcap": repr(head.softcap or 0.0)}
        save_file(tensors, temporary / "head.safetensors", metadata)
        for name, data in splits.items():
            hidden = _all_hidden(model, data)
            count = -(-len(hidden) // rows_of_a_block(hidden))
            digests = [block_digest(hidden, block) for block in range(count)]
            metadata = {"blocks": json.dumps(digests)}
            save_file({"hidden": hidden}, temporary / f"{name}.safetensors", metadata)
            _verify(model, data, TeacherCache(hidden, head), name)


def open_cache(folder: Path, split: str, device: torch.device) -> TeacherCache:
    """Opens the cache of one split: the head on `device`, the hidden states mapped, not read."""
    seal.check_folder(folder, only=("head.safetensors",))
    with safe_open(folder / "head.safetensors", framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        head = Head(
            file.get_tensor("weight"),
            file.get_tensor("bias") if "bias" in file.keys() else None,  # noqa: SIM118
            float(metadata["scale"]),
            float(metadata["softcap"]) or None,
        )
    path = folder / f"{split}.safetensors"
    with safe_open(path, framework="pt") as file:
        digests = json.loads(file.metadata()["blocks"])
        return TeacherCache(file.get_tensor("hidden"), head, Blocks(path, digests))


def _all_hidden(model: Any, data: Encoded) -> Tensor:
    """Rows of similar length share a forward pass; the result is in the order of the rows."""
    result: Tensor | None = None
    for rows in torch.split(torch.argsort(data.lengths, stable=True), ROWS):
        batch = collate(data, rows)
        hidden = _hidden(model, batch)
        if result is None:
            result = hidden.new_empty((int(data.response_lengths.sum()), hidden.shape[-1]))
        result[response_indices(data, rows)] = hidden
    assert result is not None
    return result


def _hidden(model: Any, batch: MicroBatch) -> Tensor:
    """Runs where the model is; the result lies in the machine's memory."""
    moved = batch.to(model.device)
    return hidden_states(model, moved.tokens, moved.positions).cpu()


def _verify(model: Any, data: Encoded, cache: TeacherCache, name: str) -> None:
    rows = torch.arange(0, len(data), max(1, len(data) // 4))[:4]
    batch = collate(data, rows)
    live = _hidden(model, batch)
    if not torch.isfinite(live).all():
        raise UserError(
            f"the teacher's hidden states on {name} are not finite: its weights are bad"
        )
    error = float((cache.hidden[response_indices(data, rows)] - live).abs().max())
    if error > 1e-3 * float(live.abs().max()):
        raise UserError(f"the teacher's cache of {name} is off by {error:.2g}: delete {name}")
