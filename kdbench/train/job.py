"""What one training run reads, fixes and writes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from kdbench.config.schema import Diagnostics, Lora, Loss, Recipe
from kdbench.data.encode import Encoded
from kdbench.data.tokenizer import stop_ids
from kdbench.head.chunked import PerToken, per_token_loss
from kdbench.head.teacher import LiveTeacher, TeacherCache, open_cache
from kdbench.models.model import load
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant


@dataclass(frozen=True)
class Weights:
    """A checkpoint to load.

    Attributes:
        dtype: of the weights on a GPU; their own where it is empty. A student is always float32.
        trust_remote_code: run the Python code in the folder.
    """

    folder: Path
    dtype: str = ""
    trust_remote_code: bool = False

    def load(self, device: torch.device, *, own_dtype: bool = False) -> Any:
        """The model, in float32 unless `own_dtype`."""
        return load(
            self.folder,
            device,
            own_dtype=own_dtype,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True)
class Job:
    """One training run; everything but `out`, `micro_batch` and `compile` can move its result."""

    variant: Variant
    seed_key: str
    """Seeds, with `seed`, all that is random: data order, dropout and samples."""
    seed: int
    recipe: Recipe
    loss: Loss
    diagnostics: Diagnostics
    initial: Weights
    """Of the student before training."""
    train: Path
    """The encoded split to train on."""
    dev: Path
    vocabulary: int
    max_new_tokens: int
    """Of a response sampled for training."""
    max_length: int
    """Tokens of prompt and response."""
    out: Path
    """Gets train.jsonl, model/ and trained.json."""
    micro_batch: int
    """Rows of a forward and backward pass."""
    train_rows: int | None = None
    """Only the first so many rows of the split."""
    teacher_cache: Path | None = None
    """None while there is no teacher, when models are fitted."""
    live_teacher: Weights | None = None
    """Where the teacher's body has to read the student's samples."""
    answers: Path | None = None
    """Folder of the teacher's own responses and their hidden states."""
    lora: Lora | None = None
    """Trains adapters in the place of the weights, and merges them at the end."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """Compiles the objective."""

    @cached_property
    def gold(self) -> Encoded:
        """The rows to train on, with their gold responses."""
        gold = Encoded.load(self.train)
        return gold if self.train_rows is None else gold.first(min(self.train_rows, len(gold)))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a response."""
        return stop_ids(self.initial.folder)

    def per_token(self, objective: State | None) -> PerToken:
        """The loss on gold responses, with the state of a stateful objective."""
        per_token = per_token_loss(self.variant, self.loss, objective)
        # The state is a Python number that changes: compiled, it would be compiled at every step.
        return torch.compile(per_token) if self.compile and objective is None else per_token

    def per_sampled_token(self, variant: Variant, objective: State | None = None) -> PerToken:
        """The loss of an objective on sampled responses: without the cross-entropy term."""
        return per_token_loss(variant, self.loss.model_copy(update={"sft": 0.0}), objective)

    def open_cache(self, folder: Path | None, device: torch.device) -> TeacherCache | None:
        """The teacher on the training rows; None for an objective that does not look at it."""
        if folder is None or not self.variant.objective.uses_teacher:
            return None
        return open_cache(folder, "train", device)

    def open_live_teacher(self, device: torch.device) -> LiveTeacher | None:
        """The teacher's body, where the sequences need it."""
        if self.live_teacher is None:
            return None
        return LiveTeacher(self.live_teacher.load(device, own_dtype=True), self.vocabulary)
