"""What is saved is what was trained: figures of the weights in memory and as they are read back."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.head.passes import HeldOut, measure
from kdbench.models.model import head_of

ROWS = 4
"""Of dev, that are measured once more."""
SAVED, MERGED = 1e-5, 1e-3
"""By how much a figure may differ, relative to it: between the same weights in float32, and between
adapters beside the weights and merged into them, which rounds."""
NOTHING = {SAVED: 1e-7, MERGED: 1e-4}
"""Nats that are no difference, near 0."""


def figures_of(model: Any, vocabulary: int, held_out: HeldOut) -> dict[str, float]:
    """The diagnostics that no objective has a part in."""
    model.eval()
    found = measure(model, head_of(model, vocabulary), _no_objective, held_out)
    return {name: value for name, value in found.items() if name != "dev_loss"}


def check_same(
    trained: Mapping[str, float], found: Mapping[str, float], tolerance: float, what: str
) -> None:
    """Compares figures of the weights that were trained with those of what became of them.

    Raises:
        UserError: they differ by more than rounding; it names both.
    """
    for name, value in trained.items():
        other = found[name]
        if math.isnan(value) and math.isnan(other):
            continue
        if not math.isclose(value, other, rel_tol=tolerance, abs_tol=NOTHING[tolerance]):
            raise UserError(
                f"{what}: {name} on {ROWS} rows of dev is {other:.9g}, and {value:.9g} of the "
                "weights that were trained: the model does not keep in its weights all that it "
                "computes with, so that another model than the trained one would be scored"
            )


def _no_objective(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
    return student_logits.new_zeros(len(labels))
