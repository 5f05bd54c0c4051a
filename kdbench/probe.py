"""Does a given model compute what training and sampling take it to compute?"""

from typing import Any

import torch
from torch import Tensor

from kdbench.decode import decode
from kdbench.errors import UserError
from kdbench.models import head_of, hidden_states

LENGTHS = (8, 5)
"""Of the prompts that are tried; sampling pads the shorter on the left."""


@torch.no_grad()
def check_computation(model: Any, vocabulary: int, name: str) -> None:
    """Holds a model as it is used here against its own forward pass, on a few tokens.

    Training takes the body's hidden states and forms the logits itself; sampling gives positions, a
    mask and a cache. A model whose own code does something between body and head, or that takes no
    such arguments, would be trained or sampled from wrongly.

    Args:
        model: a causal language model of transformers.
        vocabulary: ids that the tokenizer knows.
        name: what it is called in messages.

    Raises:
        UserError: it does not compute the same, or cannot be called so.
    """
    ids = torch.arange(sum(LENGTHS), device=model.device) % vocabulary
    prompts = torch.split(ids, list(LENGTHS))
    seen: list[Tensor] = []

    def choose(logits: list[Tensor]) -> Tensor:
        seen.append(logits[0])
        return logits[0].argmax(dim=-1)

    try:
        own = [model(input_ids=prompt[None]).logits[0, :, :vocabulary] for prompt in prompts]
        ours = [
            head_of(model, vocabulary).logits(
                hidden_states(model, prompt[None], torch.arange(len(prompt), device=prompt.device))
            )
            for prompt in prompts
        ]
        decode(
            [model],
            [prompt.tolist() for prompt in prompts],
            [2] * len(prompts),
            choose,
            vocabulary=vocabulary,
            end_ids=frozenset(),
            max_length=max(LENGTHS) + 2,
        )
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{name}: {type(model).__name__} cannot be called as transformers' own models are: "
            f"{error}"
        ) from error
    if not _equal(torch.cat(own), torch.cat(ours)):
        raise UserError(
            f"{name}: {type(model).__name__} does something between its body and its head that "
            "kdbench does not know, so that it would be trained on other logits than its own"
        )
    if not _equal(torch.stack([logits[-1] for logits in own]), seen[0]):
        raise UserError(
            f"{name}: {type(model).__name__} does not heed the positions or the mask of a prompt "
            "that is padded on the left, so that it cannot be sampled from in batches"
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    tolerance = 1e-3 if one.dtype == torch.float32 else 5e-2
    one, other = one.float().cpu(), other.float().cpu()
    return float((one - other).abs().max()) <= tolerance * float(one.abs().max())
