"""The state of a training, and its checkpoint: one safetensors file.

It holds the trained weights, AdamW's moments, the step, and the memory of the objective and of the
source of sequences. There is no random state to keep: data order, dropout and sampling are
functions of (seed key, seed, step).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdbench.base import store
from kdbench.base.seal import DamagedError
from kdbench.head.chunked import PerToken
from kdbench.models.model import Head, adapt, head_of
from kdbench.train.job import Job
from kdbench.variants.objective import State


class AdamW(torch.optim.AdamW):
    """AdamW, whose fused kernel leaves everything as it is where `found_inf` is 1.

    PyTorch's gradient scaler tells it so; here the loop does.
    """

    found_inf: torch.Tensor


@dataclass
class TrainState:
    """What changes from step to step.

    Attributes:
        head: of the student.
        objective: the state of a stateful objective.
        per_token: the loss on gold responses.
        adapters: peft's, which have changed the model's layers in place.
        read_at: when the last figures were read from the device; seconds of `time.perf_counter`.
    """

    model: Any
    head: Head
    optimizer: AdamW
    objective: State | None
    per_token: PerToken
    adapters: Any = None
    step: int = 0
    read_at: float = 0.0


def initial_state(job: Job, device: torch.device) -> TrainState:
    """The initial student, before the first step."""
    model = job.initial.load(device)
    adapters = None if job.lora is None else adapt(model, job.lora, seed_key=job.seed_key)
    if job.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    recipe = job.recipe
    optimizer = AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    optimizer.found_inf = torch.zeros((), device=device)
    objective = job.variant.begin()
    head, per_token = head_of(model, job.vocabulary), job.per_token(objective)
    return TrainState(model, head, optimizer, objective, per_token, adapters)


def save_checkpoint(
    path: Path,
    model: Any,
    optimizer: torch.optim.AdamW,
    step: int,
    memory: Mapping[str, Tensor],
) -> None:
    """Writes the state after `step` steps, whole or not at all."""
    tensors = {f"weights.{name}": value for name, value in _weights(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors |= {f"memory.{name}": value for name, value in memory.items()}
    content = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    metadata = {"step": str(step), "digest": _digest(content, step)}
    # From where the tensors lie: as bytes they would take their size twice again.
    with store.new_file(path) as temporary:
        save_file(content, temporary, metadata=metadata)


def load_checkpoint(
    path: Path, model: Any, optimizer: torch.optim.AdamW
) -> tuple[int, dict[str, Tensor]]:
    """Restores a state; returns the number of steps it had taken, and the memory.

    Raises:
        DamagedError: the file is not what was written.
    """
    memory: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path}: damaged ({error})") from error
    digits = metadata.get("step", "")
    step = int(digits) if digits.isdecimal() else -1
    if metadata.get("digest") != _digest(content, step):
        raise DamagedError(f"{path}: damaged, its bytes are not those that were written")
    weights = _weights(model)
    with torch.no_grad():
        for name, value in content.items():
            kind, _, rest = name.partition(".")
            if kind == "weights":
                weights[rest].copy_(value)
            elif kind == "memory":
                memory[rest] = value
            else:
                index, _, key = rest.partition(".")
                state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return step, memory


def _digest(content: Mapping[str, Tensor], step: int) -> str:
    """Of the step and the tensors' names, shapes and bytes; it travels in the file itself."""
    found = xxhash.xxh3_128(str(step).encode())
    for name in sorted(content):
        value = content[name]
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _weights(model: Any) -> dict[str, Tensor]:
    """Every trained parameter once: tied ones share a name, and what adapters leave alone stays."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
