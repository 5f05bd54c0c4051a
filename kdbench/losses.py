"""Any registered objective as the loss of your own trainer, from hidden states or from logits.

What kdbench's loop does around an objective is done here in the same way: shift, mask, temperature,
float32, vocabulary alignment, sum over tokens, division by the count of the global batch.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdbench.base.errors import UserError
from kdbench.config.schema import Loss
from kdbench.head.chunked import CHUNK_ELEMENTS, PerToken, Teacher, chunked_loss, per_token_loss
from kdbench.models.model import Head, head_of
from kdbench.variants.objective import State
from kdbench.variants.variant import DATASET, Variant, parse

IGNORE = -100
"""The label of a position that is no response token, as in torch and transformers."""
SIDES = ("student", "teacher")


@dataclass(frozen=True)
class Hidden:
    """A model's final hidden states, after its last norm, and the head that reads them.

    Attributes:
        states: [B, T, D], or [N, D].
        head: see `kdbench.models.model.Head`.
    """

    states: Tensor
    head: Head

    @classmethod
    def of(cls, model: Any, states: Tensor) -> "Hidden":
        """Hidden states of a transformers causal language model, with that model's head.

        Args:
            model: the model itself; what DistributedDataParallel or accelerate wrapped is unwrapped
                first.
            states: `model.base_model(...).last_hidden_state`, or `hidden_states[-1]` of an output.

        Raises:
            UserError: the model's head is no plain linear layer.
        """
        size = getattr(model.get_output_embeddings(), "out_features", 0)
        return cls(states, head_of(model, size))


def distillation_loss(
    objective: str | Variant,
    student: Hidden | Tensor,
    teacher: Hidden | Tensor | None,
    labels: Tensor | None = None,
    *,
    shift_labels: Tensor | None = None,
    vocabulary: int | None = None,
    num_items_in_batch: int | Tensor | None = None,
    state: State | None = None,
    temperature: float = 1.0,
    t_squared: bool = False,
    kd: float = 1.0,
    sft: float = 0.0,
) -> Tensor:
    """The distillation loss of a batch: `kd` times the objective plus `sft` times cross-entropy.

    Student and teacher are both given as `Hidden` or both as logits. From hidden states, logits
    exist for one chunk of response tokens at a time and never for the batch; from logits, only the
    objective's own buffers are chunked. Value and gradient are the same. The objective computes
    in float32 (or wider), whatever the models run in; no gradient flows to the teacher.

    Args:
        objective: an expression such as `"amid[alpha=-3]"`, or a variant.
        student: hidden states and head, or logits [B, T, V] or [N, V]. Padding needs no care: only
            positions that have a label are read.
        teacher: the same for the teacher, on the same tokens; its hidden size may differ. None for
            an objective that does not look at the teacher, such as `sft`.
        labels: [B, T], -100 where there is nothing to learn. **They are shifted inside**, as in
            transformers: `labels[:, t + 1]` is what position t predicts, so `labels` is `input_ids`
            with the prompt and the padding set to -100.
        shift_labels: given instead of `labels` where the shift has been done, as in transformers:
            [B, T] or [N], what each position predicts. The only way for [N, V] and [N, D].
        vocabulary: the tokenizer's true size, `len(tokenizer)`. Both models are cut to it and
            renormalised: padded heads (Qwen's 151,936 and 152,064) hold ids that do not exist.
        num_items_in_batch: response tokens of the whole global batch (all micro-batches, all
            ranks), counted after the shift, as transformers' Trainer passes it. The sum over this
            batch's tokens is divided by it, so accumulated gradients are those of one large batch.
            Left out: the response tokens of this batch.
        state: of an objective that has one (`taid`), from `variant.begin()` and kept for the whole
            training; after each optimiser step call `state.after_step(loss, progress)` with the
            loss of the global batch and the share of the steps done.
        temperature: divides both logits for the objective; the cross-entropy is taken at 1.
        t_squared: multiplies the objective by the temperature squared.
        kd: weight of the objective.
        sft: weight of the cross-entropy on the labels.

    Returns:
        A scalar. Where no position has a label it is 0 and has a zero gradient, so that an
        optimiser or a reducer of gradients does not wait in vain. Where the objective is +inf by
        definition (`variant.infinite_where()`) it is +inf, never clamped.

    Raises:
        UserError: shapes or vocabularies that do not match, a label outside the vocabulary, a
            setting out of range, or an objective that needs more than a batch: a state that is not
            given, or a source of sequences of its own.
    """
    variant = parse(objective) if isinstance(objective, str) else objective
    _check_is_one_batchs(variant, state)
    per_token = per_token_loss(variant, _terms(temperature, t_squared, kd, sft), state)
    if not variant.objective.uses_teacher:
        teacher = None
    elif teacher is None:
        raise UserError(f"{variant.name} compares with the teacher: teacher=None has no answer")
    targets = _targets(labels, shift_labels)
    sides = [student] if teacher is None else [student, teacher]
    hidden = [side for side in sides if isinstance(side, Hidden)]
    logits = [side for side in sides if isinstance(side, Tensor)]
    if len(hidden) == len(sides):
        total, count = _of_hidden(per_token, hidden, targets, vocabulary)
    elif len(logits) == len(sides):
        total, count = _of_logits(per_token, logits, targets, vocabulary)
    else:
        raise UserError(
            "student and teacher are both given as kdbench.losses.Hidden, or both as logits, not "
            f"as {type(student).__name__} and {type(teacher).__name__}"
        )
    divisor = count if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(divisor, device=total.device).clamp_min(1)


def _check_is_one_batchs(variant: Variant, state: State | None) -> None:
    if variant.sequences != DATASET:
        bare = variant.drawn_from(DATASET)
        raise UserError(
            f"{variant.name} is {bare.name} on sequences from '{variant.sequences.name}', and "
            f"a loss sees only the batch it is given: make those sequences, then use {bare.name}"
        )
    if (variant.objective.kind == "stateful") != (state is not None):
        raise UserError(
            f"{variant.name} has no state, so state= must be left out"
            if state is not None
            else f"{variant.name} changes from step to step: keep state = objective("
            f"'{variant.name}').begin() (from kdbench.api), give it as state=, and call "
            "state.after_step(loss, progress) after each optimiser step"
        )


def _terms(temperature: float, t_squared: bool, kd: float, sft: float) -> Loss:
    try:
        return Loss(temperature=temperature, t_squared=t_squared, kd=kd, sft=sft)
    except ValidationError as error:
        reasons = [f"{' '.join(map(str, item['loc']))} {item['msg']}" for item in error.errors()]
        raise UserError(f"distillation_loss: {'; '.join(reasons).strip()}") from error


def _targets(labels: Tensor | None, shift_labels: Tensor | None) -> Tensor:
    """What each position predicts."""
    if (labels is None) == (shift_labels is None):
        raise UserError("give labels, which are shifted here, or shift_labels, which are not")
    if labels is None:
        assert shift_labels is not None
        return shift_labels
    if labels.dim() != 2:
        raise UserError(
            f"labels have the shape {list(labels.shape)}, and only rows [B, T] can be shifted: "
            "for single positions give shift_labels, what each of them predicts"
        )
    return torch.nn.functional.pad(labels, (0, 1), value=IGNORE)[:, 1:]


def _of_hidden(
    per_token: PerToken, sides: list[Hidden], targets: Tensor, vocabulary: int | None
) -> tuple[Tensor, int]:
    for who, side in zip(SIDES, sides, strict=False):
        if side.states.shape[-1] != side.head.weight.shape[1]:
            raise UserError(
                f"the {who}'s states {list(side.states.shape)} and its head, [V, D] = "
                f"{list(side.head.weight.shape)}, do not belong together"
            )
    size = _common_size([side.head.weight.shape[0] for side in sides], vocabulary)
    labels, *rows = _labelled_rows([side.states for side in sides], targets, size)
    heads = [_cut(side.head, size) for side in sides]
    teacher = Teacher(rows[1], heads[1]) if len(sides) == 2 else None
    return chunked_loss(per_token, rows[0], heads[0], labels, teacher), len(labels)


def _of_logits(
    per_token: PerToken, sides: list[Tensor], targets: Tensor, vocabulary: int | None
) -> tuple[Tensor, int]:
    size = _common_size([side.shape[-1] for side in sides], vocabulary)
    labels, *rows = _labelled_rows(sides, targets, size)

    def part_sum(logits: Tensor, other: Tensor, part_labels: Tensor) -> Tensor:
        return per_token(_wide(other), _wide(logits), part_labels).sum()

    logits, other = rows[0][:, :size], rows[-1][:, :size].detach()
    # 0 times an infinite logit would be NaN: the zero is that of an empty selection.
    total = _wide(logits[:0]).sum()
    chunk = max(1, CHUNK_ELEMENTS // size)
    parts = zip(logits.split(chunk), other.split(chunk), labels.split(chunk), strict=True)  # type: ignore[no-untyped-call]
    for part in parts:
        if len(labels):
            # The objective's buffers exist only while a chunk's gradient is formed.
            total = total + checkpoint(part_sum, *part, use_reentrant=False)
    return total, len(labels)


def _common_size(sizes: list[int], vocabulary: int | None) -> int:
    if vocabulary is None:
        if len(set(sizes)) > 1:
            raise UserError(
                f"the student has {sizes[0]} ids and the teacher {sizes[1]}: give vocabulary=, the "
                "size of the tokenizer that both use; models of different tokenizers cannot be "
                "compared id by id"
            )
        return sizes[0]
    if not 0 < vocabulary <= min(sizes):
        raise UserError(
            f"vocabulary={vocabulary} does not fit: the models have "
            f"{' and '.join(map(str, sizes))} ids"
        )
    return vocabulary


def _labelled_rows(sides: list[Tensor], targets: Tensor, size: int) -> list[Tensor]:
    """The labels [N] of the positions that have one, and the rows of each side there, [N, ...]."""
    for who, side in zip(SIDES, sides, strict=False):
        if side.shape[:-1] != targets.shape:
            raise UserError(
                f"the {who} has the shape {list(side.shape)} and the labels {list(targets.shape)}: "
                "all but its last dimension must agree"
            )
    rows = (targets.flatten() != IGNORE).nonzero().flatten()
    labels = targets.flatten()[rows]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < size:
        raise UserError(
            f"labels lie between {int(labels.min())} and {int(labels.max())}, outside the "
            f"vocabulary of {size} ids; what is to be ignored has the label {IGNORE}"
        )
    chosen = [side.flatten(0, -2)[rows.to(side.device)] for side in sides]
    return [labels.to(sides[0].device), *chosen]


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _cut(head: Head, size: int) -> Head:
    bias = None if head.bias is None else head.bias[:size]
    return replace(head, weight=head.weight[:size], bias=bias)
