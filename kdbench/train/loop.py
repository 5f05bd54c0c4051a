"""The one training loop: suite, seed and objective in; a student, and what happened, out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from kdbench import store
from kdbench.data.batches import MicroBatch, batch_rows, collate, micro_batches
from kdbench.data.encode import Encoded
from kdbench.errors import UserError
from kdbench.models import Head, head_of, hidden_states, load, pick_device
from kdbench.objective import Variant
from kdbench.seeds import derive
from kdbench.spec import Diagnostics, Loss, Recipe
from kdbench.train.checkpoint import load_checkpoint, save_checkpoint
from kdbench.train.head import PerToken, Teacher, chunked_loss, per_token_loss
from kdbench.train.monitor import HeldOut, explain_non_finite, measure
from kdbench.train.teacher import TeacherCache, open_cache

Progress = Callable[[dict[str, float]], None]


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
    out: Path
    """Gets train.jsonl, model/ and trained.json."""
    micro_batch: int
    compile: bool


@dataclass
class _State:
    """What changes from step to step."""

    model: Any
    head: Head
    optimizer: torch.optim.AdamW
    step: int = 0


class _DivergedError(Exception):
    """The loss or its gradient is not finite; a result, not a crash."""


def train(job: Job, progress: Progress = lambda _: None) -> None:
    """Trains a student, from its last checkpoint where there is one.

    Writes one row per step to `train.jsonl`, the weights to `model/`, and last `trained.json`. A
    trial whose loss or gradient is not finite ends there: it is recorded as diverged, and its
    weights are those of its last checkpoint (the initial ones, where there is none yet).
    """
    job.out.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    data, dev = _load_data(job)
    cache = None
    if job.teacher is not None and job.variant.objective.uses_teacher:
        cache = open_cache(job.teacher, "train", device)
    state = _initial_state(job, device)
    per_token = per_token_loss(job.variant, job.loss)
    if job.compile:
        per_token = torch.compile(per_token)
    held_out = _held_out(job, dev, device)
    checkpoint = job.out / "checkpoint.safetensors"
    if checkpoint.exists():
        state.step = load_checkpoint(checkpoint, state.model, state.optimizer)
    store.repair_jsonl(job.out / "train.jsonl", keep_rows=state.step)
    diverged: dict[str, Any] = {"diverged_at": None, "reason": None}
    with (job.out / "train.jsonl").open("a", encoding="utf-8") as log:
        try:
            while state.step < job.recipe.steps:
                row = _step(job, state, data, cache, per_token, device)
                due = state.step % job.diagnostics.every == 0 or state.step == job.recipe.steps
                if due or state.step == 1:
                    state.model.eval()
                    row |= measure(state.model, state.head, per_token, held_out)
                _write(log, row)
                # By steps, not by the clock: a diverged trial is scored from here, always the same.
                if due:
                    save_checkpoint(checkpoint, state.model, state.optimizer, state.step)
                progress({**row, "steps": job.recipe.steps})
        except _DivergedError as error:
            diverged = {"diverged_at": state.step + 1, "reason": str(error)}
            state = _initial_state(job, device)
            if checkpoint.exists():
                state.step = load_checkpoint(checkpoint, state.model, state.optimizer)
    _finish(job, state, diverged)
    checkpoint.unlink(missing_ok=True)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to `min_lr`; `step` counts from 0."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


def _step(
    job: Job,
    state: _State,
    data: Encoded,
    cache: TeacherCache | None,
    per_token: PerToken,
    device: torch.device,
) -> dict[str, Any]:
    """One global batch: the gradient is the sum over its tokens, divided by their number."""
    begun = time.perf_counter()
    recipe, model = job.recipe, state.model
    rows = batch_rows(len(data), recipe.batch, state.step, suite=job.suite, seed=job.seed)
    tokens = int(data.response_lengths[rows].sum())
    lr = learning_rate(recipe, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    torch.manual_seed(derive("dropout", job.suite, job.seed, state.step))
    model.train()
    state.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=device)
    for batch in micro_batches(data, rows, job.micro_batch):
        teacher = None if cache is None else cache.batch(data, batch.rows)
        loss += _backward(state, batch, teacher, per_token, tokens, device)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    # The one synchronisation of a step: whether to go on depends on both.
    loss_value, norm_value = torch.stack([loss, norm]).tolist()
    row = {
        "step": state.step + 1,
        "loss": loss_value,
        "grad_norm": norm_value,
        "clipped": norm_value > recipe.clip,
        "lr": lr,
        "tokens": tokens,
    }
    if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
        raise _DivergedError(_explain(job, state, data, rows, cache, per_token, row, device))
    state.optimizer.step()
    state.step += 1
    return row | {"seconds": round(time.perf_counter() - begun, 6)}


def _backward(
    state: _State,
    batch: MicroBatch,
    teacher: Teacher | None,
    per_token: PerToken,
    tokens: int,
    device: torch.device,
) -> torch.Tensor:
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        inputs, positions = batch.tokens.to(device), batch.positions.to(device)
        hidden = hidden_states(state.model, inputs, positions)
        labels = batch.labels.to(device)
        loss = chunked_loss(per_token, hidden, state.head, labels, teacher) / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _explain(
    job: Job,
    state: _State,
    data: Encoded,
    rows: torch.Tensor,
    cache: TeacherCache | None,
    per_token: PerToken,
    row: dict[str, Any],
    device: torch.device,
) -> str:
    place = "in the gradient"
    for batch in micro_batches(data, rows, job.micro_batch):
        with torch.no_grad():
            hidden = hidden_states(state.model, batch.tokens.to(device), batch.positions.to(device))
        teacher = None if cache is None else cache.batch(data, batch.rows)
        labels = batch.labels.to(device)
        place = explain_non_finite(per_token, hidden, state.head, labels, teacher)
        if place != "in the gradient":
            break
    return f"loss {row['loss']}, gradient norm {row['grad_norm']}: {place}"


def _load_data(job: Job) -> tuple[Encoded, Encoded]:
    data = Encoded.load(job.train)
    if job.train_rows is not None and job.train_rows < len(data):
        data = data.first(job.train_rows)
    return data, Encoded.load(job.dev)


def _initial_state(job: Job, device: torch.device) -> _State:
    model = load(job.initial, device)
    recipe = job.recipe
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    return _State(model, head_of(model, job.vocabulary), optimizer)


def _held_out(job: Job, dev: Encoded, device: torch.device) -> HeldOut:
    rows = torch.arange(min(job.diagnostics.rows, len(dev)))
    batch = collate(dev, rows)
    teacher = None
    if job.teacher is not None:
        teacher = open_cache(job.teacher, "dev", device).batch(dev, rows)
    moved = (part.to(device) for part in (batch.tokens, batch.positions, batch.labels))
    return HeldOut(MicroBatch(rows, *moved), teacher)


def _write(log: IO[str], row: dict[str, Any]) -> None:
    log.write(store.dump_line(row))
    log.flush()


def _finish(job: Job, state: _State, diverged: dict[str, Any]) -> None:
    rows = store.read_jsonl(job.out / "train.jsonl")
    seconds = sum(row["seconds"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    with store.new_folder(job.out / "model") as folder:
        state.model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            source = job.initial / name
            if not source.is_file():
                raise UserError(f"{job.initial}: {name} is missing")
            (folder / name).write_bytes(source.read_bytes())
    summary = {"steps": state.step, "train_seconds": round(seconds, 3), "tokens": tokens}
    store.write_json(job.out / "trained.json", {**diverged, **summary})
