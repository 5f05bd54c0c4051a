"""Agreement with other people's code, in value and gradient, and where their conventions differ.

* TRL's `generalized_jsd_loss` and Liger-Kernel's fused JSD have GKD's beta, the teacher's weight,
  as kdbench has. Both replace the ends: beta 0 is forward KL and 1 is reverse KL, to which the
  divergence itself does not tend (it tends to 0), so kdbench's beta lies strictly inside (0, 1).
* Neither multiplies by the square of the temperature; kdbench does where `t_squared` is set.
* TRL's "batchmean" divides by the number of labelled tokens where it is given labels, and by the
  number of *rows* where it is not; its "mean" divides by tokens times the vocabulary. It does not
  shift: its trainer does, and so does `distillation_loss`.
* Liger's "mean" divides by the labelled tokens it is given, of one rank and one micro-batch. Where
  the teacher's head is the larger, it pads the student's logits with zeros, which puts mass on ids
  that do not exist; kdbench cuts both.
* scipy's `jensenshannon` is the square root of the divergence, at beta = 1/2.
* torch's `kl_div` takes the student first; its "batchmean" divides by the first dimension.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from torch.nn import functional

from kdbench.losses import Hidden, distillation_loss
from kdbench.models.model import Head
from tests.objective_tools import logits

ROWS, LENGTH, IDS = 3, 6, 11
TEACHER, STUDENT = (side.view(ROWS, LENGTH, IDS) for side in logits(0, ROWS * LENGTH, IDS))
INSIDE = [0.1, 0.5, 0.9]


def make_labels() -> Tensor:
    labels = torch.randint(IDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = labels[1, :4] = labels[2, 3:] = -100
    return labels


LABELS = make_labels()


@pytest.fixture(scope="module")
def trl_jsd() -> Callable[..., Tensor]:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    loss: Callable[..., Tensor] = GKDTrainer.generalized_jsd_loss
    return loss


def with_gradient(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    student = STUDENT.clone().requires_grad_()
    value = loss(student)
    return value.detach(), torch.autograd.grad(value, student)[0]


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", INSIDE)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("count", [None, 50])
def test_jsd_is_trls(
    trl_jsd: Callable[..., Tensor], beta: float, temperature: float, count: int | None
) -> None:
    def theirs(student: Tensor) -> Tensor:
        return trl_jsd(
            student[:, :-1], TEACHER[:, :-1], LABELS[:, 1:], beta=beta, temperature=temperature,
            num_items_in_batch=count,
        )  # fmt: skip

    def ours(student: Tensor) -> Tensor:
        return distillation_loss(
            f"jsd[beta={beta}]", student, TEACHER, LABELS, temperature=temperature,
            num_items_in_batch=count,
        )  # fmt: skip

    assert_same(with_gradient(ours), with_gradient(theirs))


@pytest.mark.parametrize(("beta", "name"), [(0.0, "forward-kl"), (1.0, "reverse-kl")])
def test_trl_replaces_the_ends_of_beta_by_the_two_kls(
    trl_jsd: Callable[..., Tensor], beta: float, name: str
) -> None:
    def theirs(student: Tensor) -> Tensor:
        return trl_jsd(student[:, :-1], TEACHER[:, :-1], LABELS[:, 1:], beta=beta)

    def ours(student: Tensor) -> Tensor:
        return distillation_loss(name, student, TEACHER, LABELS)

    assert_same(with_gradient(ours), with_gradient(theirs))


def test_trls_batchmean_without_labels_divides_by_rows(trl_jsd: Callable[..., Tensor]) -> None:
    sum_over_tokens = distillation_loss(
        "jsd", STUDENT, TEACHER, shift_labels=LABELS.clamp_min(0), num_items_in_batch=1
    )
    assert_same(trl_jsd(STUDENT, TEACHER), sum_over_tokens / ROWS)


@pytest.mark.skipif(sys.platform != "linux", reason="Liger-Kernel needs triton")
@pytest.mark.parametrize("beta", INSIDE)
@pytest.mark.parametrize(("sft", "temperature"), [(0.0, 1.0), (0.4, 1.0), (0.4, 2.0)])
def test_jsd_from_hidden_states_is_ligers(beta: float, sft: float, temperature: float) -> None:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    generator = torch.Generator().manual_seed(2)
    shapes = [(ROWS * LENGTH, 5), (IDS, 5), (IDS,), (ROWS * LENGTH, 8), (IDS, 8), (IDS,)]
    states, weight, bias, *teacher = (torch.randn(*s, generator=generator) for s in shapes)
    leaves = [leaf.requires_grad_() for leaf in (states, weight, bias)]
    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=sft, weight_soft_loss=0.6, beta=beta, temperature=temperature,
        compiled=False, chunk_size=4,
    )  # fmt: skip
    theirs = loss(states, weight, teacher[0], teacher[1], LABELS.flatten(), bias, teacher[2])
    ours = distillation_loss(
        f"jsd[beta={beta}]",
        Hidden(states, Head(weight, bias)),
        Hidden(teacher[0], Head(teacher[1], teacher[2])),
        shift_labels=LABELS.flatten(),
        temperature=temperature,
        kd=0.6,
        sft=sft,
    )
    # Both compute in float32.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    slopes = (torch.autograd.grad(value, leaves) for value in (ours, theirs))
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def torch_forward_kl(logp: Tensor, logq: Tensor) -> Tensor:
    return functional.kl_div(logq, logp, log_target=True, reduction="batchmean")


def torch_reverse_kl(logp: Tensor, logq: Tensor) -> Tensor:
    return functional.kl_div(logp, logq, log_target=True, reduction="batchmean")


@pytest.mark.parametrize(
    ("name", "peer"), [("forward-kl", torch_forward_kl), ("reverse-kl", torch_reverse_kl)]
)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_kl_is_torchs(
    name: str, peer: Callable[[Tensor, Tensor], Tensor], temperature: float
) -> None:
    labelled = LABELS[:, 1:] != -100

    def theirs(student: Tensor) -> Tensor:
        logp, logq = (
            torch.log_softmax(side[:, :-1][labelled] / temperature, -1)
            for side in (TEACHER, student)
        )
        return temperature**2 * peer(logp, logq)

    def ours(student: Tensor) -> Tensor:
        return distillation_loss(
            name, student, TEACHER, LABELS, temperature=temperature, t_squared=True
        )

    assert_same(with_gradient(ours), with_gradient(theirs))


def scipy_values(name: str, p: np.ndarray[Any, Any], q: np.ndarray[Any, Any]) -> Any:
    """Per token, from scipy's functions of probabilities."""
    if name == "jsd":
        return jensenshannon(p, q, axis=-1) ** 2
    forward, reverse = stats.entropy(p, q, axis=-1), stats.entropy(q, p, axis=-1)
    if name == "skew-kl":
        return stats.entropy(p, 0.1 * p + 0.9 * q, axis=-1)
    return {"forward-kl": forward, "reverse-kl": reverse, "jeffreys": (forward + reverse) / 2}[name]


@pytest.mark.parametrize("name", ["forward-kl", "reverse-kl", "jeffreys", "jsd", "skew-kl"])
def test_divergence_is_scipys(name: str) -> None:
    p, q = (torch.softmax(side, -1).numpy() for side in (TEACHER, STUDENT))
    expected = scipy_values(name, p, q).mean()
    found = distillation_loss(name, STUDENT, TEACHER, shift_labels=LABELS.clamp_min(0))
    assert float(found) == pytest.approx(expected, rel=1e-10)
