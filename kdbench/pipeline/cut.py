"""Which layers a student can do without.

A student that is cut from a checkpoint (`student.keep_layers`) writes fluent text after a short fit
only where the cut is light and spares the layers that matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdbench.base.errors import UserError
from kdbench.data.batches import MicroBatch, micro_batches
from kdbench.data.encode import Encoded
from kdbench.models.model import head_of, hidden_states, layer_list, load, pick_device
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.build import prepare

ROWS_AT_A_TIME = 16


@dataclass(frozen=True)
class Cut:
    """The student's checkpoint without some of its layers.

    Attributes:
        left_out: layers, counted from 0.
        kept: the others.
        loss: mean cross-entropy on gold responses, in nats a token.
    """

    left_out: tuple[int, ...]
    kept: tuple[int, ...]
    loss: float


def cuts(artifacts: Artifacts, rows: int, drop: int) -> Iterator[Cut]:
    """The whole checkpoint, then without each layer in turn, then without one more after another.

    Of the least influential layers, the one is left out each time whose loss costs least: layers
    that are weak alone may stand in for one another. At most `rows` training rows measure it.

    Raises:
        UserError: the student is made from scratch, or has not so many layers.
    """
    suite = artifacts.suite
    folder = artifacts.checkpoint("student")
    if folder is None:
        raise UserError(f"suite {suite.name}: its student is made from scratch: nothing to cut")
    prepare(artifacts)
    data = Encoded.load(artifacts.encoded / "train.safetensors")
    batches = list(micro_batches(data, torch.arange(min(rows, len(data))), ROWS_AT_A_TIME))
    trusted = suite.student.trust_remote_code
    model = load(folder, pick_device(), trust_remote_code=trusted).eval()
    parent, name = layer_list(model)
    layers = list(getattr(parent, name))
    if drop >= len(layers):
        raise UserError(f"--drop {drop}: the checkpoint has {len(layers)} layers")

    def without(*left_out: int) -> Cut:
        kept = [index for index in range(len(layers)) if index not in left_out]
        setattr(parent, name, nn.ModuleList(layers[index] for index in kept))
        model.config.num_hidden_layers = len(kept)
        loss = mean_loss(model, artifacts.vocabulary, batches)
        return Cut(tuple(sorted(left_out)), tuple(kept), loss)

    yield without()
    alone = {}
    for index in range(len(layers)):
        yield (found := without(index))
        alone[index] = found.loss
    candidates = sorted(alone, key=alone.__getitem__)[: 2 * drop]
    best = without()
    for _ in range(drop):
        tried = [without(*best.left_out, index) for index in candidates]
        best = min(tried, key=lambda cut: cut.loss)
        candidates = [index for index in candidates if index not in best.left_out]
        yield best


@torch.no_grad()
def mean_loss(model: Any, vocabulary: int, batches: list[MicroBatch]) -> float:
    """The cross-entropy of a model on response tokens, in nats a token."""
    total, tokens = 0.0, 0
    head = head_of(model, vocabulary)
    for batch in batches:
        moved = batch.to(model.device)
        logits = head.logits(hidden_states(model, moved.tokens, moved.positions))
        total += float(nn.functional.cross_entropy(logits, moved.labels, reduction="sum"))
        tokens += len(moved.labels)
    return total / tokens
