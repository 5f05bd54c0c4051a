"""`distillation_loss`: against torch and transformers, and one input form against the other."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers.loss.loss_utils import ForCausalLMLoss

from kdbench import losses
from kdbench.api import objective
from kdbench.base.errors import UserError
from kdbench.losses import Hidden, distillation_loss
from kdbench.models.model import Head

torch.set_num_threads(1)

B, T, V, D, D_TEACHER = 3, 7, 19, 5, 8


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_labels() -> Tensor:
    """Rows with prompts and paddings of different lengths; 9 response tokens."""
    labels = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(9))
    labels[0, :3] = labels[1, :2] = labels[1, 4:] = labels[2, :5] = labels[2, 6:] = -100
    return labels


LABELS = make_labels()
SHIFTED = functional.pad(LABELS, (0, 1), value=-100)[:, 1:]
STUDENT, TEACHER = 2 * normal(0, B, T, V), 2 * normal(1, B, T, V)


def hidden(*, extra_student: int = 0, extra_teacher: int = 0, bias: bool = True) -> list[Hidden]:
    """Student and teacher; `extra` ids stand at the end of a padded head."""
    sides = []
    for place, (width, extra) in enumerate(((D, extra_student), (D_TEACHER, extra_teacher))):
        weight = torch.cat([normal(10 + place, V, width), normal(20 + place, extra, width)])
        offset = torch.cat([normal(30 + place, V), normal(40 + place, extra)]) if bias else None
        head = Head(weight, offset, 1.1, 6.0)
        sides.append(Hidden(normal(50 + place, B, T, width), head))
    return sides


def leaves_of(side: Hidden) -> list[Tensor]:
    return [leaf.requires_grad_() for leaf in (side.states, *side.head.parameters())]


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor = STUDENT) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def assert_same(found: Any, expected: Any, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("count", [None, 40, torch.tensor(40)])
def test_sft_is_transformers_causal_loss(count: int | Tensor | None) -> None:
    def theirs(logits: Tensor) -> Tensor:  # it rounds to float32
        return ForCausalLMLoss(logits, LABELS, V, num_items_in_batch=count)

    found = gradient(lambda q: distillation_loss("sft", q, None, LABELS, num_items_in_batch=count))
    torch.testing.assert_close(found[0], theirs(STUDENT), check_dtype=False, rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], gradient(theirs)[1], rtol=1e-5, atol=1e-8)


def test_forward_kl_is_torchs_kl_div_over_the_tokens_that_have_a_label() -> None:
    def theirs(logits: Tensor) -> Tensor:
        logq = torch.log_softmax(logits[:, :-1] / 2, -1)[LABELS[:, 1:] != -100]
        logp = torch.log_softmax(TEACHER[:, :-1] / 2, -1)[LABELS[:, 1:] != -100]
        return 4 * functional.kl_div(logq, logp, log_target=True, reduction="batchmean")

    def ours(logits: Tensor) -> Tensor:
        return distillation_loss(
            "forward-kl", logits, TEACHER, LABELS, temperature=2.0, t_squared=True
        )

    assert_same(gradient(ours), gradient(theirs))


def test_terms_add_up_with_their_weights() -> None:
    def loss(**weights: float) -> Tensor:
        return distillation_loss("tvd", STUDENT, TEACHER, LABELS, temperature=3.0, **weights)

    nll = distillation_loss("sft", STUDENT, None, LABELS)
    assert_same(loss(kd=0.7, sft=0.2), 0.7 * loss() + 0.2 * nll)


@pytest.mark.parametrize("name", ["amid[alpha=-3]", "reverse-kl", "jsd[beta=0.9]", "sft"])
@pytest.mark.parametrize("bias", [True, False])
def test_hidden_states_give_the_value_and_gradients_of_logits(name: str, bias: bool) -> None:
    student, teacher = hidden(bias=bias)
    leaves = leaves_of(student)
    settings: dict[str, Any] = {"temperature": 2.0, "t_squared": True, "sft": 0.3}
    logits, teacher_logits = (side.head.logits(side.states) for side in (student, teacher))
    expected = distillation_loss(name, logits, teacher_logits, LABELS, **settings)
    found = distillation_loss(name, student, teacher, LABELS, **settings)
    assert_same(found, expected)
    assert_same(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def ours(logits: Tensor) -> Tensor:
        return distillation_loss("amid", logits, TEACHER, LABELS)

    whole = gradient(ours)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 2 * V)
    assert_same(gradient(ours), whole)


def test_a_padded_head_is_cut_to_the_vocabulary_and_renormalised() -> None:
    expected = distillation_loss("amid", *hidden(), LABELS)
    student, teacher = hidden(extra_student=2, extra_teacher=5)
    leaves = leaves_of(student)
    found = distillation_loss("amid", student, teacher, LABELS, vocabulary=V)
    assert_same(found, expected)
    _, d_weight, d_bias = torch.autograd.grad(found, leaves)
    assert not d_weight[V:].any()
    assert not d_bias[V:].any()
    assert d_weight[:V].any()


def test_padded_logits_are_cut_to_the_vocabulary_and_renormalised() -> None:
    student, teacher = (torch.cat([side, normal(7, B, T, 4)], -1) for side in (STUDENT, TEACHER))
    expected = gradient(lambda q: distillation_loss("jsd", q, TEACHER, LABELS))
    found = gradient(
        lambda q: distillation_loss("jsd", q, teacher[..., :-1], LABELS, vocabulary=V), student
    )
    assert_same(found[0], expected[0])
    assert_same(found[1][..., :V], expected[1])
    assert not found[1][..., V:].any()


def test_accumulated_micro_batches_give_the_gradient_of_one_batch() -> None:
    total = int((LABELS[:, 1:] != -100).sum())
    _, expected = gradient(lambda q: distillation_loss("jeffreys", q, TEACHER, LABELS))
    leaf = STUDENT.clone().requires_grad_()
    for part in (slice(0, 1), slice(1, 3)):  # 4 tokens and 3
        distillation_loss(
            "jeffreys", leaf[part], TEACHER[part], LABELS[part], num_items_in_batch=total
        ).backward()  # type: ignore[no-untyped-call]
    assert_same(leaf.grad, expected)


def test_shifted_labels_of_flat_positions_give_the_same_loss() -> None:
    flat = distillation_loss(
        "jsd", STUDENT.flatten(0, 1), TEACHER.flatten(0, 1), shift_labels=SHIFTED.flatten()
    )
    assert_same(flat, distillation_loss("jsd", STUDENT, TEACHER, LABELS))


def test_what_has_no_label_is_never_read() -> None:
    spoiled = STUDENT.clone()
    spoiled[SHIFTED == -100] = torch.nan
    expected = gradient(lambda q: distillation_loss("jsd", q, TEACHER, LABELS))
    assert_same(gradient(lambda q: distillation_loss("jsd", q, TEACHER, LABELS), spoiled), expected)


def test_an_id_that_neither_model_can_say_changes_nothing() -> None:
    nothing = torch.full((B, T, 1), -torch.inf, dtype=torch.float64)
    student, teacher = (torch.cat([side, nothing], -1) for side in (STUDENT, TEACHER))
    found = distillation_loss("jsd", student, teacher, LABELS)
    assert_same(found, distillation_loss("jsd", STUDENT, TEACHER, LABELS))


@pytest.mark.parametrize("count", [None, 0, 12])
def test_a_batch_without_labels_has_loss_and_gradients_zero(count: int | None) -> None:
    nothing = torch.full_like(LABELS, -100)
    settings: dict[str, Any] = {"labels": nothing, "num_items_in_batch": count}
    infinite = torch.full_like(STUDENT, torch.inf)
    value, slope = gradient(lambda q: distillation_loss("jsd", q, TEACHER, **settings), infinite)
    assert value == 0
    assert not slope.any()
    student, teacher = hidden()
    leaves = leaves_of(student)
    loss = distillation_loss("jsd", student, teacher, **settings)
    assert loss == 0
    assert not any(slope.any() for slope in torch.autograd.grad(loss, leaves))


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = hidden()
    leaves = leaves_of(teacher)
    leaves_of(student)
    distillation_loss("jsd", student, teacher, LABELS).backward()  # type: ignore[no-untyped-call]
    assert all(leaf.grad is None for leaf in leaves)


def test_half_precision_logits_are_compared_in_float32() -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    found = distillation_loss("amid", student, teacher, LABELS)
    assert found.dtype == torch.float32
    assert_same(found, distillation_loss("amid", student.float(), teacher.float(), LABELS))


def test_a_state_is_used_as_it_stands_and_moves_after_a_step() -> None:
    taid = objective("taid")
    state = taid.begin()
    assert state is not None
    first = distillation_loss(taid, STUDENT, TEACHER, LABELS, state=state)
    assert_same(first, distillation_loss(taid, STUDENT, TEACHER, LABELS, state=taid.begin()))
    state.after_step(float(first), 0.5)
    state.after_step(float(first), 1.0)
    last = distillation_loss(taid, STUDENT, TEACHER, LABELS, state=state)
    # At t = 1 the target is the teacher itself.
    assert_same(last, distillation_loss("forward-kl", STUDENT, TEACHER, LABELS))


def test_hidden_of_a_model_reads_what_its_own_head_reads() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=V, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double()
    tokens = LABELS.clamp_min(0)
    output = model(input_ids=tokens, output_hidden_states=True)
    found = distillation_loss("jsd", *2 * [Hidden.of(model, output.hidden_states[-1])], LABELS)
    assert_same(found, torch.zeros((), dtype=torch.float64))
    student = Hidden.of(model, output.hidden_states[-1])
    expected = distillation_loss("sft", output.logits, None, LABELS)
    assert_same(distillation_loss("sft", student, None, LABELS), expected)


STATES, TEACHER_STATES = hidden()
REFUSED: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "teacher=None": ("jsd", STUDENT, None, {}),
    "both as logits": ("jsd", STUDENT, TEACHER_STATES, {}),
    "give labels, which are shifted here, or": ("jsd", STUDENT, TEACHER, {"labels": None}),
    "or shift_labels, which are not": ("jsd", STUDENT, TEACHER, {"shift_labels": SHIFTED}),
    "only rows [B, T] can be shifted": ("jsd", STUDENT[0], TEACHER[0], {"labels": LABELS[0]}),
    "student has the shape [3, 7, 19] and the labels [3, 6]": (
        "jsd", STUDENT, TEACHER, {"labels": LABELS[:, 1:]},
    ),
    "teacher has the shape": ("jsd", STUDENT, TEACHER[:, 1:], {}),
    "student has 19 ids and the teacher 18: give vocabulary=": (
        "jsd", STUDENT, TEACHER[..., 1:], {},
    ),
    "vocabulary=19 does not fit: the models have 19 and 18 ids": (
        "jsd", STUDENT, TEACHER[..., 1:], {"vocabulary": V},
    ),
    "outside the vocabulary of 3 ids": (
        "jsd", STUDENT, TEACHER, {"labels": LABELS.clamp_min(0), "vocabulary": 3},
    ),
    "has the label -100": ("jsd", STUDENT, TEACHER, {"labels": LABELS.clamp_min(-1)}),
    "student's states [3, 7, 5] and its head, [V, D] = [19, 8]": (
        "jsd", replace(STATES, head=TEACHER_STATES.head), TEACHER_STATES, {},
    ),
    "temperature": ("jsd", STUDENT, TEACHER, {"temperature": 0.0}),
    "nothing to minimise": ("jsd", STUDENT, TEACHER, {"kd": 0.0}),
    "jsd": ("jds", STUDENT, TEACHER, {}),
    "then use jsd": ("jsd@mixed", STUDENT, TEACHER, {}),
    "objective('taid').begin()": ("taid", STUDENT, TEACHER, {}),
    "jsd has no state": ("jsd", STUDENT, TEACHER, {"state": objective("taid").begin()}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_say_what_is_wrong(message: str) -> None:
    name, student, teacher, settings = REFUSED[message]
    with pytest.raises(UserError, match=re.escape(message)):
        distillation_loss(name, student, teacher, **{"labels": LABELS, **settings})
