"""The chunked head against all logits at once: value and gradient, every registered objective."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.config.schema import Loss
from kdbench.head.chunked import PerToken, Teacher, chunked_loss, per_token_loss, plain_loss
from kdbench.models.model import Head
from kdbench.variants.select import expand
from kdbench.variants.variant import Variant, parse

N, D, V, D_TEACHER = 23, 8, 37, 12


def make_batch(*, bias: bool = False, softcap: float | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    head = Head(normal(V, D), normal(V) if bias else None, 1.3, softcap)
    for parameter in head.parameters():
        parameter.requires_grad_()
    return {
        "hidden": normal(N, D).requires_grad_(),
        "head": head,
        "labels": torch.randint(V, (N,), generator=generator),
        "teacher": Teacher(normal(N, D_TEACHER), Head(normal(V, D_TEACHER))),
        "weights": torch.rand(N, generator=generator, dtype=torch.float64),
    }


def value_and_gradients(loss: Tensor, batch: dict[str, Any]) -> list[Tensor]:
    leaves = [batch["hidden"], *batch["head"].parameters()]
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def assert_chunked_equals_plain(
    per_token: PerToken, batch: dict[str, Any], chunks: Sequence[int]
) -> None:
    plain = value_and_gradients(plain_loss(per_token, **batch), batch)
    for chunk in chunks:
        chunked = value_and_gradients(chunked_loss(per_token, **batch, chunk=chunk), batch)
        torch.testing.assert_close(chunked, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", expand("all"), ids=str)
def test_chunked_head_equals_plain_head(variant: Variant) -> None:
    per_token = per_token_loss(variant, Loss(kd=0.7, sft=0.3, temperature=2.0, t_squared=True))
    assert_chunked_equals_plain(per_token, make_batch() | {"weights": None}, (1, 7, N, 100))


@pytest.mark.parametrize(("bias", "softcap"), [(True, None), (False, 5.0), (True, 5.0)])
def test_chunked_head_honours_bias_softcap_and_weights(bias: bool, softcap: float | None) -> None:
    per_token = per_token_loss(parse("reverse-kl"), Loss())
    assert_chunked_equals_plain(per_token, make_batch(bias=bias, softcap=softcap), (5,))


def test_upstream_gradient_scales_the_stored_gradients() -> None:
    batch = make_batch()
    per_token = per_token_loss(expand("tvd")[0], Loss())
    once = value_and_gradients(chunked_loss(per_token, **batch), batch)
    scaled = value_and_gradients(3.0 * chunked_loss(per_token, **batch), batch)
    for expected, found in zip(once, scaled, strict=True):
        torch.testing.assert_close(found, 3.0 * expected)


LOSSES = pytest.mark.parametrize("loss", [chunked_loss, plain_loss])


def infinite_batch() -> dict[str, Any]:
    """A teacher that never says id 0 and a student that does: many objectives are +inf."""
    batch = make_batch(bias=True)
    never = torch.zeros(V, dtype=torch.float64)
    never[0] = -torch.inf
    head = Head(batch["teacher"].head.weight, never)
    return batch | {"weights": None, "teacher": Teacher(batch["teacher"].hidden, head)}


@LOSSES
@pytest.mark.parametrize("name", ["reverse-kl", "taid", "concrete-score"])
def test_an_objective_of_weight_zero_is_not_evaluated(
    name: str, loss: Callable[..., Tensor]
) -> None:
    batch, variant = infinite_batch(), parse(name)
    per_token = per_token_loss(variant, Loss(kd=0.0, sft=0.3), variant.begin())
    logits = batch["head"].logits(batch["hidden"])
    nll = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")
    wanted = value_and_gradients(0.3 * nll, batch)
    torch.testing.assert_close(value_and_gradients(loss(per_token, **batch), batch), wanted)


@LOSSES
def test_a_loss_without_a_term_is_zero_and_has_a_gradient(loss: Callable[..., Tensor]) -> None:
    """On samples, which have no cross-entropy, where the objective has the weight 0."""
    batch = infinite_batch()
    nothing = Loss(kd=0.0, sft=1.0).model_copy(update={"sft": 0.0})
    per_token = per_token_loss(parse("reverse-kl"), nothing)
    assert not any(part.any() for part in value_and_gradients(loss(per_token, **batch), batch))


@LOSSES
@pytest.mark.parametrize("kept", [[], [3, 4, 9]])
def test_a_token_of_weight_zero_is_not_evaluated(
    loss: Callable[..., Tensor], kept: list[int]
) -> None:
    batch, rows = make_batch(bias=True), torch.tensor(kept, dtype=torch.long)
    per_token, teacher = per_token_loss(parse("reverse-kl"), Loss(sft=1.0)), batch["teacher"]
    part = batch | {
        "hidden": batch["hidden"][rows],
        "labels": batch["labels"][rows],
        "teacher": Teacher(teacher.hidden[rows], teacher.head),
        "weights": batch["weights"][rows],
    }
    wanted = value_and_gradients(plain_loss(per_token, **part), batch)
    dead = torch.ones(N, 1, dtype=torch.bool).index_fill(0, rows, False)
    batch["weights"] = batch["weights"].masked_fill(dead[:, 0], 0.0)
    batch["hidden"] = batch["hidden"].detach().masked_fill(dead, torch.inf).requires_grad_()
    torch.testing.assert_close(value_and_gradients(loss(per_token, **batch), batch), wanted)


def test_temperature_divides_both_logits_of_the_objective_but_not_of_sft() -> None:
    batch = make_batch()
    head, teacher = batch["head"], batch["teacher"]
    student_logits = head.logits(batch["hidden"])
    teacher_logits = teacher.head.logits(teacher.hidden)
    p, q = teacher_logits / 2, student_logits / 2
    logp, logq = p - p.logsumexp(-1, keepdim=True), q - q.logsumexp(-1, keepdim=True)
    labels = batch["labels"]
    nll = torch.nn.functional.cross_entropy(student_logits, labels, reduction="none")
    expected = 0.7 * 4.0 * (logp.exp() * (logp - logq)).sum(-1) + 0.3 * nll
    loss = Loss(kd=0.7, sft=0.3, temperature=2.0, t_squared=True)
    found = per_token_loss(expand("forward-kl")[0], loss)(teacher_logits, student_logits, labels)
    torch.testing.assert_close(found, expected)


def test_logits_of_half_precision_models_are_float32() -> None:
    head = Head(torch.randn(V, D, dtype=torch.bfloat16))
    assert head.logits(torch.randn(3, D, dtype=torch.bfloat16)).dtype == torch.float32


class _Largest:
    """Records the largest tensor that a per-token loss is given."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        self.rows = max(self.rows, len(student))
        return student.square().sum(-1)


def test_no_more_than_a_chunk_of_logits_exists_at_a_time() -> None:
    batch, largest = make_batch(), _Largest()
    chunked_loss(largest, **batch, chunk=4)
    assert largest.rows == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["forward-kl", "jsd", "amid"])
def test_compiled_objective_equals_eager(name: str) -> None:
    batch = make_batch()
    per_token = per_token_loss(parse(name), Loss())
    eager = value_and_gradients(chunked_loss(per_token, **batch, chunk=8), batch)
    compiled = torch.compile(per_token)
    found = value_and_gradients(chunked_loss(compiled, **batch, chunk=8), batch)
    for expected, value in zip(eager, found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)
