"""The one training loop: suite, seed and objective in; a student, and what happened, out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from kdbench.base import seal, store
from kdbench.base.errors import UserError
from kdbench.base.seal import DamagedError
from kdbench.base.seeds import derive
from kdbench.config.schema import Recipe
from kdbench.data.batches import MicroBatch, collate, micro_batches
from kdbench.data.encode import Encoded
from kdbench.data.tokenizer import TOKENIZER_FILES
from kdbench.head.passes import HeldOut, explain_non_finite, measure
from kdbench.head.teacher import open_cache
from kdbench.models.model import (
    hidden_states,
    load,
    mixed_precision,
    pick_device,
    save,
    training_mode,
)
from kdbench.train import saved
from kdbench.train.batch import GlobalBatch, Portion, Sequences
from kdbench.train.job import Job
from kdbench.train.sequences import open_sequences
from kdbench.train.state import TrainState, initial_state, load_checkpoint, save_checkpoint

Progress = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class _Launched:
    """A step that the device may still be at work on.

    Attributes:
        row: its line of the log, but for what has to be read from the device.
        figures: loss and gradient norm, [2].
        begun: seconds of `time.perf_counter`.
    """

    batch: GlobalBatch
    row: dict[str, Any]
    figures: torch.Tensor
    begun: float


class _DivergedError(Exception):
    """The loss or its gradient is not finite; a result, not a crash."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def train(job: Job, progress: Progress = lambda _: None) -> None:
    """Trains a student, from its last checkpoint where there is one.

    Writes one row per step to `train.jsonl`, the weights to `model/`, and last `trained.json`. A
    trial whose loss or gradient is not finite ends there: it is recorded as diverged, and its
    weights are those of its last checkpoint (the initial ones, where there is none yet).
    """
    job.out.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    state = initial_state(job, device)
    sequences = open_sequences(job, state)
    held_out = _held_out(job, device, job.diagnostics.rows)

    def diagnostics() -> dict[str, float]:
        state.model.eval()
        return measure(state.model, state.head, state.per_token, held_out)

    checkpoint = job.out / "checkpoint.safetensors"
    if checkpoint.exists():
        _resume(job, checkpoint, state, sequences)
    late_reads = reads_late(state, sequences, device)
    late: _Launched | None = None
    store.repair_jsonl(job.out / "train.jsonl", keep_rows=state.step)
    diverged: dict[str, Any] = {"diverged_at": None, "reason": None}
    with (job.out / "train.jsonl").open("a", encoding="utf-8") as log:
        try:
            if state.step == 0:
                sequences.begin(diagnostics)
            while state.step < job.recipe.steps:
                launched = _launch(job, state, sequences, device)
                if late is not None:
                    row = _read(job, state, late, device)
                    _write(log, row)
                    progress({**row, "steps": job.recipe.steps})
                due = state.step % job.diagnostics.every == 0 or state.step == job.recipe.steps
                late = launched if late_reads and not due and state.step > 1 else None
                if late is not None:
                    continue
                row = _read(job, state, launched, device)
                if due or state.step == 1:
                    row |= diagnostics()
                if due:
                    sequences.measured(row)
                _write(log, row)
                # By steps, not by the clock: a diverged trial is scored from here, always the same.
                if due:
                    _save(checkpoint, state, sequences)
                progress({**row, "steps": job.recipe.steps})
        except _DivergedError as error:
            diverged = {"diverged_at": error.step, "reason": str(error)}
            state = initial_state(job, device)
            if checkpoint.exists():
                _restore(checkpoint, state, sequences)
    _finish(job, state, diverged, _held_out(job, device, saved.ROWS))
    checkpoint.unlink(missing_ok=True)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine to `min_lr`; `step` counts from 0."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1.0 + math.cos(math.pi * done))


def reads_late(state: TrainState, sequences: Sequences, device: torch.device) -> bool:
    """Whether a step's figures are read while the device is at work on the next one.

    On a GPU, unless the next step depends on them: on the loss as a schedule does, or on weights
    that are known to be finite as sampling does.
    """
    waits = state.objective is not None or sequences.live is not None
    return device.type == "cuda" and not waits


def _launch(job: Job, state: TrainState, sequences: Sequences, device: torch.device) -> _Launched:
    """One global batch: the gradient is the sum over its tokens, divided by their number.

    Nothing here waits for the device, unless the sequences are sampled. From the first loss or
    gradient on that is not finite the optimizer leaves the weights as they are, for `_read` to
    explain.
    """
    begun = time.perf_counter()
    recipe, model, live = job.recipe, state.model, sequences.live
    passes = 0 if live is None else live.passes
    lr = learning_rate(recipe, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    try:
        batch = sequences.batch(state.step)
    except FloatingPointError as error:  # a student that cannot even be sampled from
        raise _DivergedError(state.step + 1, f"while sampling: {error}") from error
    torch.manual_seed(derive("dropout", job.seed_key, job.seed, state.step))
    state.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=device)
    with training_mode(model, dropout=job.variant.sequences.dropout):
        for portion in batch.portions:
            for part in micro_batches(portion.data, portion.rows, job.micro_batch):
                loss += _backward(state, portion, part, batch.normaliser, device)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    figures = torch.stack([loss, norm])
    state.optimizer.found_inf = torch.maximum(
        state.optimizer.found_inf, 1.0 - torch.isfinite(figures).all().float()
    )
    state.optimizer.step()
    state.step += 1
    row = {
        "step": state.step,
        "lr": lr,
        "tokens": batch.tokens,
        "generated": batch.generated,
        "teacher_passes": 0 if live is None else live.passes - passes,
    }
    return _Launched(batch, row, figures, begun)


def _read(job: Job, state: TrainState, launched: _Launched, device: torch.device) -> dict[str, Any]:
    """A step's line of the log; the one place of a step that waits for the device."""
    loss, norm = launched.figures.tolist()
    now, step = time.perf_counter(), launched.row["step"]
    seconds = now - max(launched.begun, state.read_at)
    state.read_at = now
    if not (math.isfinite(loss) and math.isfinite(norm)):
        place = _explain(state, launched.batch, job.micro_batch, device)
        raise _DivergedError(step, f"loss {loss}, gradient norm {norm}: {place}")
    if state.objective is not None:
        state.objective.after_step(loss, step / job.recipe.steps)
    figures = {"loss": loss, "grad_norm": norm, "clipped": norm > job.recipe.clip}
    return {"step": step, **figures, **launched.row, "seconds": round(seconds, 6)}


def _backward(
    state: TrainState, portion: Portion, batch: MicroBatch, normaliser: float, device: torch.device
) -> torch.Tensor:
    teacher = portion.teacher_side(batch)
    batch = batch.to(device)
    with mixed_precision(device):
        hidden = hidden_states(state.model, batch.tokens, batch.positions)
        loss = portion.loss(hidden, state.head, batch, teacher) / normaliser
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _explain(state: TrainState, batch: GlobalBatch, micro_batch: int, device: torch.device) -> str:
    for portion in batch.portions:
        for part in micro_batches(portion.data, portion.rows, micro_batch):
            moved, teacher = part.to(device), portion.teacher_side(part)
            with torch.no_grad(), mixed_precision(device):
                hidden = hidden_states(state.model, moved.tokens, moved.positions)
            weights = portion.weights_of(part, device)
            place = explain_non_finite(
                portion.per_token, hidden, state.head, moved.labels, teacher, weights
            )
            if place:
                return place
    return "in the gradient"


def _save(path: Path, state: TrainState, sequences: Sequences) -> None:
    objective = {} if state.objective is None else state.objective.state_dict()
    memory = {
        f"objective.{key}": torch.tensor(value, dtype=torch.float64)
        for key, value in objective.items()
    }
    memory |= {f"sequences.{key}": value for key, value in sequences.state().items()}
    save_checkpoint(path, state.model, state.optimizer, state.step, memory)


def _restore(path: Path, state: TrainState, sequences: Sequences) -> None:
    state.step, memory = load_checkpoint(path, state.model, state.optimizer)
    parts: dict[str, dict[str, torch.Tensor]] = {"objective": {}, "sequences": {}}
    for name, value in memory.items():
        owner, _, key = name.partition(".")
        parts[owner][key] = value
    if state.objective is not None:
        numbers = {key: float(value) for key, value in parts["objective"].items()}
        state.objective.load_state_dict(numbers)
    sequences.load_state(parts["sequences"])


def _resume(job: Job, checkpoint: Path, state: TrainState, sequences: Sequences) -> None:
    """Goes on from a checkpoint whose log is complete.

    Raises:
        UserError: the checkpoint is damaged, or the log lacks steps; both are removed.
    """
    log = job.out / "train.jsonl"
    try:
        _restore(checkpoint, state, sequences)
        steps = [row.get("step") for row in store.read_jsonl(log)[: state.step]]
        if steps != list(range(1, state.step + 1)):
            raise DamagedError(f"{log}: lacks steps of the {state.step} in the checkpoint")
    except UserError as error:
        seal.remove(checkpoint, log)
        raise UserError(
            f"{error}; checkpoint and log were removed: the same command trains from the beginning"
        ) from error


def _held_out(job: Job, device: torch.device, most: int) -> HeldOut:
    dev = Encoded.load(job.dev)
    rows = torch.arange(min(most, len(dev)))
    teacher = None
    if job.teacher_cache is not None:
        teacher = open_cache(job.teacher_cache, "dev", device).batch(dev, rows)
    return HeldOut(collate(dev, rows).to(device), teacher)


def _write(log: IO[str], row: dict[str, Any]) -> None:
    log.write(store.dump_line(row))
    log.flush()


def _finish(job: Job, state: TrainState, diverged: dict[str, Any], held_out: HeldOut) -> None:
    rows = store.read_jsonl(job.out / "train.jsonl")
    seconds = sum(row["seconds"] for row in rows)
    figures = saved.figures_of(state.model, job.vocabulary, held_out)
    model, trusts_code = state.model, job.initial.trust_remote_code
    if state.adapters is not None:
        # Answers come from plain weights: no backend has to know of adapters.
        model = state.adapters.merge_and_unload()
        merged = saved.figures_of(model, job.vocabulary, held_out)
        if diverged["diverged_at"] is None:  # else they may be too large for any tolerance
            saved.check_same(figures, merged, saved.MERGED, f"{job.out}: the merged adapters")
        figures = merged
    with seal.sealed_folder(job.out / "model") as folder:
        save(model, folder)
        for name in TOKENIZER_FILES:
            if (source := job.initial.folder / name).is_file():
                (folder / name).write_bytes(source.read_bytes())
    state.optimizer.state.clear()  # what is read back takes its place
    again = load(job.out / "model", model.device, trust_remote_code=trusts_code)
    found = saved.figures_of(again, job.vocabulary, held_out)
    try:
        saved.check_same(figures, found, saved.SAVED, f"{job.out}: the weights as saved")
    except UserError:
        seal.remove(job.out / "model")
        raise
    summary = {
        "steps": state.step,
        "train_seconds": round(seconds, 3),
        "tokens": sum(row["tokens"] for row in rows),
        "generated_tokens": sum(row["generated"] for row in rows),
        "teacher_passes": sum(row["teacher_passes"] for row in rows),
    }
    store.write_json(job.out / "trained.json", {**diverged, **summary})
