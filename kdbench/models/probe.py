"""Whether a given model computes what training and sampling take it to compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.models.model import head_of, hidden_states
from kdbench.models.sampling import decode

LENGTHS = (8, 5)
"""Of the prompts that are tried; sampling pads the shorter on the left."""
FINE, COARSE = 0.01, 0.5
"""Nats by which rounding may move a log-probability, in float32 and in 16 bits."""
NOTHING = -50.0
"""Below it log-probabilities are alike."""


@torch.no_grad()
def check_computation(model: Any, vocabulary: int, name: str) -> None:
    """Holds a model as it is used here against its own forward pass, on a few tokens.

    Training takes the body's hidden states and forms the logits itself; sampling gives positions, a
    mask and a cache. A model whose own code does something between body and head, or that takes no
    such arguments, would be trained or sampled from wrongly.

    Raises:
        UserError: it does not compute the same, or cannot be called so.
    """
    ids = torch.arange(sum(LENGTHS), device=model.device) % vocabulary
    prompts = list(torch.split(ids, list(LENGTHS)))
    sampled: list[Tensor] = []

    def own_logits(prompt: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=prompt[None]).logits
        return logits[0, :, :vocabulary]

    def choose(logits: list[Tensor]) -> Tensor:
        sampled.append(logits[0])
        return logits[0].argmax(dim=-1)

    try:
        own = [own_logits(prompt) for prompt in prompts]
        ours = [
            head_of(model, vocabulary).logits(
                hidden_states(model, prompt[None], torch.arange(len(prompt), device=prompt.device))
            )
            for prompt in prompts
        ]
        responses = decode(
            [model],
            [prompt.tolist() for prompt in prompts],
            [2] * len(prompts),
            choose,
            vocabulary=vocabulary,
            end_ids=frozenset(),
            max_length=max(LENGTHS) + 2,
        )
        longer = [
            own_logits(torch.cat([prompt, prompt.new_tensor(response[:1])]))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{name}: {type(model).__name__} cannot be called as transformers' own models are: "
            f"{error}"
        ) from error
    if not torch.cat(own).logsumexp(dim=-1).isfinite().all():
        raise UserError(f"{name}: the logits are not finite: its weights are bad")
    tolerance = FINE if model.dtype == torch.float32 else COARSE
    if not _difference(own, ours) <= tolerance:
        raise UserError(
            f"{name}: {type(model).__name__} does something between its body and its head that "
            "kdbench does not know, so that it would be trained on other logits than its own"
        )
    first, second = (list(logits[:, None]) for logits in sampled[:2])
    for last, found in ((own, first), (longer, second)):
        if not _difference([logits[-1:] for logits in last], found) <= tolerance:
            raise UserError(
                f"{name}: {type(model).__name__} does not heed the positions, the mask or the "
                "cache of prompts that are padded on the left, so that it cannot be sampled from "
                "in batches"
            )


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest between two log-probabilities, in nats."""
    first, second = (
        torch.cat(list(parts)).float().cpu().log_softmax(dim=-1).clamp(min=NOTHING)
        for parts in (one, other)
    )
    return float((first - second).abs().max())
