"""From hidden states at response positions to the loss and its gradients, chunk by chunk.

For each chunk of tokens the logits, the per-token values and the gradients are formed, and only
d(hidden) and d(weight) are kept: memory is chunk x V, never batch x length x V, for any objective.
The matrix products take a chunk at a time, the objective a block of it that fits into the cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.config.schema import Loss
from kdbench.models.model import Head
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant

PerToken = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(teacher_logits [N, V], student_logits [N, V], labels [N]) -> values [N]."""

CHUNK_ELEMENTS = 2**24
"""Logits that exist at one time: 64 MiB a buffer in float32, whatever the vocabulary."""

BLOCK_ELEMENTS = 2**18
"""Logits that a thread takes through an objective at a time: a buffer is 1 MiB and stays in the
cache, where a pass over a chunk would go to memory."""


@dataclass(frozen=True)
class Teacher:
    """The teacher's side of a batch: final hidden states [N, D] and the head that reads them."""

    hidden: Tensor
    head: Head


def per_token_loss(variant: Variant, loss: Loss, state: State | None = None) -> PerToken:
    """All terms of a suite's loss as one function of logits.

    Temperature divides both logits for the objective, `t_squared` multiplies it by T^2, and the
    cross-entropy on the gold response is taken at temperature 1, as is an objective that does not
    look at the teacher. A stateful objective is evaluated as its `state` stands at each call. What
    has the weight 0 is not evaluated: it may be infinite.

    The function raises `UserError` where an objective does not give one value per token.
    """
    if not variant.objective.uses_teacher:  # what does not distil has no temperature
        loss = loss.model_copy(update={"temperature": 1.0})

    def distilled(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
        student_logp = _log_softmax(student_logits, loss.temperature)
        with torch.no_grad():
            teacher_logp = _log_softmax(teacher_logits, loss.temperature)
        if state is None:
            value = variant(teacher_logp, student_logp, labels)
        else:
            value = state.per_token(teacher_logp, student_logp)
        if value.shape != labels.shape:
            raise UserError(
                f"{variant.name} ({variant.objective.defined_at}) returns shape "
                f"{list(value.shape)} for {len(labels)} tokens; an objective gives one value per "
                "token, and neither a mean nor a sum over them"
            )
        return loss.factor * value

    def values(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
        if loss.factor:
            total = distilled(teacher_logits, student_logits, labels)
        else:  # zeros that have a gradient, whatever the logits are
            total = student_logits[:, :0].sum(dim=-1)
        if loss.sft:
            logp = torch.log_softmax(student_logits, dim=-1)
            total = total - loss.sft * logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return total

    return values


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)


def chunked_loss(
    per_token: PerToken,
    hidden: Tensor,
    head: Head,
    labels: Tensor,
    teacher: Teacher | None,
    *,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The sum over tokens of a per-token loss; equal to `plain_loss` in value and gradient.

    Args:
        per_token: the loss as a function of logits.
        hidden: the student's final hidden states at response positions, [N, D].
        head: the student's head.
        labels: next-token ids, [N].
        teacher: the teacher's hidden states at the same positions, or None where the objective
            does not look at the teacher.
        weights: per-token weights, [N]; 1 where left out. A token whose weight is 0 is not
            evaluated.
        chunk: tokens whose logits exist at one time; from the vocabulary's size if left out.

    Returns:
        A scalar; its gradients for `hidden` and the head were computed on the way.
    """
    hidden, labels, teacher, weights = _weighted(hidden, labels, teacher, weights)
    size = chunk or chunk_size(head)
    total: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head, per_token, labels, teacher, weights, size
    )
    return total


@torch.no_grad()
def label_logp(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    """Log-probabilities of the labels, [N], chunk by chunk and without a gradient."""
    parts = []
    for start in range(0, len(hidden), chunk_size(head)):
        part = slice(start, start + chunk_size(head))
        logp = torch.log_softmax(head.logits(hidden[part]), dim=-1)
        parts.append(logp.gather(-1, labels[part].unsqueeze(-1)).squeeze(-1))
    return torch.cat(parts)


def chunk_size(head: Head) -> int:
    """Tokens in a chunk, so that its logits stay within `CHUNK_ELEMENTS`."""
    return max(1, CHUNK_ELEMENTS // head.weight.shape[0])


def block_size(head: Head) -> int:
    """Tokens in a block of a chunk, so that each thread's logits stay within `BLOCK_ELEMENTS`."""
    on_cpu = head.weight.device.type == "cpu"
    elements = BLOCK_ELEMENTS * torch.get_num_threads() if on_cpu else CHUNK_ELEMENTS
    return max(1, elements // head.weight.shape[0])


def plain_loss(
    per_token: PerToken,
    hidden: Tensor,
    head: Head,
    labels: Tensor,
    teacher: Teacher | None,
    weights: Tensor | None = None,
) -> Tensor:
    """The same sum with all logits at once and ordinary autograd: the oracle of the fast path."""
    hidden, labels, teacher, weights = _weighted(hidden, labels, teacher, weights)
    student_logits = head.logits(hidden)
    with torch.no_grad():
        teacher_logits = student_logits if teacher is None else teacher.head.logits(teacher.hidden)
    values = per_token(teacher_logits, student_logits, labels)
    return values.sum() if weights is None else (values * weights).sum()


def _weighted(
    hidden: Tensor, labels: Tensor, teacher: Teacher | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Teacher | None, Tensor | None]:
    """Only the tokens whose weight is not 0: 0 times an infinite value would be NaN."""
    if weights is None or bool((weights != 0).all()):
        return hidden, labels, teacher, weights
    kept = weights.nonzero().flatten()
    if teacher is not None:
        teacher = Teacher(teacher.hidden[kept], teacher.head)
    return hidden[kept], labels[kept], teacher, weights[kept]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        per_token: PerToken,
        labels: Tensor,
        teacher: Teacher | None,
        weights: Tensor | None,
        chunk: int,
    ) -> Tensor:
        rows = block_size(head)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            inputs = hidden[part]
            product = inputs @ weight.T
            beside = None if teacher is None else teacher.hidden[part] @ teacher.head.weight.T
            for first in range(0, len(inputs), rows):
                block = slice(first, first + rows)
                total += _replace_by_gradient(
                    product[block],
                    d_bias,
                    head,
                    per_token,
                    labels[part][block],
                    None
                    if beside is None or teacher is None
                    else teacher.head.finish(beside[block], teacher.head.bias),
                    None if weights is None else weights[part][block],
                )
            d_hidden[part] = product @ weight
            if product.dtype == d_weight.dtype:
                d_weight.addmm_(product.T, inputs)
            else:  # autocast: the sum over chunks stays in the weight's own type
                d_weight += product.T @ inputs
        ctx.save_for_backward(d_hidden, d_weight, *([] if d_bias is None else [d_bias]))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = grad_outputs
        d_hidden, d_weight, *d_bias = (saved * upstream for saved in ctx.saved_tensors)
        return d_hidden, d_weight, d_bias[0] if d_bias else None, *[None] * 6


def _replace_by_gradient(
    product: Tensor,
    d_bias: Tensor | None,
    head: Head,
    per_token: PerToken,
    labels: Tensor,
    teacher_logits: Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """The loss of a block of tokens; its gradient takes the place of `product`, [rows, V].

    The objective's autograd stays inside the block, so that its buffers stay in the cache.
    """
    leaves = [product.detach().requires_grad_()]
    if d_bias is not None and head.bias is not None:
        leaves.append(head.bias.detach().requires_grad_())
    with torch.enable_grad():
        student_logits = head.finish(leaves[0], leaves[1] if len(leaves) > 1 else None)
        if teacher_logits is None:
            teacher_logits = student_logits.detach()
        values = per_token(teacher_logits, student_logits, labels)
        value = values.sum() if weights is None else (values * weights).sum()
    d_product, *d_leaves = torch.autograd.grad(value, leaves)
    product.copy_(d_product)
    if d_bias is not None:
        d_bias += d_leaves[0]
    return value.detach()
