"""The example with transformers' Trainer: it learns, by the gradient of the global batch."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

EXAMPLE = Path(__file__).parents[1] / "examples" / "distil_with_trainer.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("distil_with_trainer", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Gradients(TrainerCallback):
    """Keeps the gradients that the first step of the optimiser was given."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, *arguments: Any, model: Any, **others: Any) -> None:
        for name, parameter in model.named_parameters():
            self.kept.setdefault(name, parameter.grad.clone())


def first_gradients(example: ModuleType, folder: Path, rows: int, times: int) -> dict[str, Tensor]:
    """Of a global batch of rows x times sequences, unclipped."""
    trainer = example.make_trainer(
        "jsd", str(folder), max_steps=1, max_grad_norm=0.0, per_device_train_batch_size=rows,
        gradient_accumulation_steps=times,
    )  # fmt: skip
    gradients = _Gradients()
    trainer.add_callback(gradients)
    trainer.train()
    return gradients.kept


@pytest.mark.slow
def test_the_loss_falls(example: ModuleType) -> None:
    losses = example.main("amid[alpha=-3]", steps=60)
    assert losses[-1] < 0.6 * losses[0]


def test_accumulating_two_by_four_gives_the_gradient_of_eight(
    example: ModuleType, tmp_path: Path
) -> None:
    whole = first_gradients(example, tmp_path, 8, 1)
    for name, found in first_gradients(example, tmp_path, 2, 4).items():
        torch.testing.assert_close(found, whole[name], rtol=1e-4, atol=1e-7)


class _Logits(TorchDispatchMode):
    """Records the most rows of any tensor whose last dimension is a vocabulary."""

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() and result.shape[-1] in self.sizes:
            self.most = max(self.most, result.numel() // result.shape[-1])
        return result


def test_logits_exist_at_response_positions_only(example: ModuleType, tmp_path: Path) -> None:
    trainer = example.make_trainer("jsd", str(tmp_path), per_device_train_batch_size=46)
    inputs = next(iter(trainer.get_train_dataloader()))
    responses = int((inputs["labels"] != -100).sum())
    assert responses < inputs["labels"].numel() / 2
    vocabulary = trainer.vocabulary
    with _Logits({vocabulary, vocabulary + 5}) as logits:
        trainer.compute_loss(trainer.model, inputs).backward()
    assert logits.most == responses
