"""What one training run reads and writes, and the objective and sequences that follow from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdbench.config.schema import Diagnostics, Lora, Loss, Recipe
from kdbench.data.encode import Encoded
from kdbench.data.tokenizer import stop_ids
from kdbench.head.chunked import PerToken, per_token_loss
from kdbench.head.teacher import LiveTeacher, TeacherCache, open_cache
from kdbench.models.model import Head, load
from kdbench.train.setting import Setting, Source
from kdbench.train.sources import make_source
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant


@dataclass(frozen=True)
class Job:
    """What one training run reads and writes; everything but `micro_batch` can move its result."""

    variant: Variant
    suite: str
    seed: int
    recipe: Recipe
    loss: Loss
    diagnostics: Diagnostics
    initial: Path
    """Folder of the initial weights."""
    train: Path
    """The encoded split to train on."""
    train_rows: int | None
    dev: Path
    teacher: Path | None
    """Folder of the teacher's cache; None while there is no teacher, when models are fitted."""
    vocabulary: int
    max_new_tokens: int
    """Of a response sampled for training."""
    max_length: int
    """Tokens of prompt and response."""
    out: Path
    """Gets train.jsonl, model/ and trained.json."""
    micro_batch: int
    compile: bool
    live_teacher: Path | None = None
    """Folder of the teacher's weights, where its body has to read the student's samples."""
    answers: Path | None = None
    """Folder of the teacher's own responses and their hidden states."""
    lora: Lora | None = None
    """Trains adapters in the place of the weights, and merges them at the end."""
    gradient_checkpointing: bool = False
    live_dtype: str = ""
    """Of the live teacher's weights on a GPU; their own where it is empty."""
    trust_remote_code: bool = False
    """Run the Python code in `initial`."""
    live_trust_remote_code: bool = False
    """Run the Python code in `live_teacher`."""


def per_token_of(job: Job, objective: State | None) -> PerToken:
    """The loss on gold responses, with the state of a stateful objective."""
    per_token = per_token_loss(job.variant, job.loss, objective)
    # The state is a Python number that changes: compiled, it would be compiled at every step.
    return torch.compile(per_token) if job.compile and objective is None else per_token


def source_of(
    job: Job, model: Any, head: Head, on_gold: PerToken, objective: State | None
) -> Source:
    """The source of sequences, with the teacher's side of everything it may train on.

    Args:
        job: what to train.
        model: the student, as it changes.
        head: the student's.
        on_gold: the loss on gold responses.
        objective: the state of a stateful objective.
    """
    variant, without_sft = job.variant, job.loss.model_copy(update={"sft": 0.0})
    on_samples = on_gold
    if job.loss.sft and variant.sequences.samples:
        on_samples = per_token_loss(variant, without_sft, objective)
    contrast = variant.sequences.params.get("student_divergence")
    on_student = per_token_loss(contrast, without_sft) if isinstance(contrast, Variant) else None
    gold = Encoded.load(job.train)
    if job.train_rows is not None and job.train_rows < len(gold):
        gold = gold.first(job.train_rows)
    live = None
    if job.live_teacher is not None:
        body = load(
            job.live_teacher,
            model.device,
            own_dtype=True,
            dtype=job.live_dtype,
            trust_remote_code=job.live_trust_remote_code,
        )
        live = LiveTeacher(body, job.vocabulary)
    return make_source(
        Setting(
            variant=variant,
            suite=job.suite,
            seed=job.seed,
            steps=job.recipe.steps,
            batch=job.recipe.batch,
            gold=gold,
            cache=_cache(job, job.teacher, model.device),
            answers=Encoded.load(job.answers / "train.safetensors") if job.answers else None,
            answers_cache=_cache(job, job.answers and job.answers / "cache", model.device),
            model=model,
            head=head,
            live=live,
            on_gold=on_gold,
            on_samples=on_samples,
            factor=job.loss.factor,
            on_student=on_student,
            vocabulary=job.vocabulary,
            end_ids=stop_ids(job.initial),
            max_new_tokens=job.max_new_tokens,
            max_length=job.max_length,
        )
    )


def _cache(job: Job, folder: Path | None, device: torch.device) -> TeacherCache | None:
    if folder is None or not job.variant.objective.uses_teacher:
        return None
    return open_cache(folder, "train", device)
