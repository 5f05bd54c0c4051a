"""Sampling from models through their own forward pass, batched, with a cache of keys and values."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Choose = Callable[[list[Tensor]], Tensor]
"""From each model's next-token logits [rows, vocabulary], float32, to the tokens [rows]."""


@torch.inference_mode()
def decode(
    models: Sequence[Any],
    prompts: Sequence[Sequence[int]],
    room: Sequence[int],
    choose: Choose,
    *,
    vocabulary: int,
    end_ids: frozenset[int],
    max_length: int,
) -> list[list[int]]:
    """Continues all prompts side by side, one token at a time.

    Args:
        models: causal language models that read the same tokens.
        prompts: token ids.
        room: the most new tokens of each.
        choose: picks the next tokens from the models' logits.
        vocabulary: ids that the tokenizer knows; a head may be padded beyond them.
        end_ids: tokens that end a sequence.
        max_length: positions that the models have.

    Returns:
        The new tokens of each prompt, up to and with its end token.
    """
    device = models[0].device
    width = max(len(prompt) for prompt in prompts)
    padding = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor(
        [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)],
        device=device,
    )
    pads = torch.tensor(padding, device=device)[:, None]
    mask = (torch.arange(width, device=device) >= pads).long()
    positions = (torch.arange(width, device=device) - pads).clamp(min=0)
    generated: list[list[int]] = [[] for _ in prompts]
    open_rows = [True] * len(prompts)
    caches: list[Any] = [None] * len(models)
    while True:
        logits = []
        for index, model in enumerate(models):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=caches[index],
                use_cache=True,
                logits_to_keep=1,
            )
            caches[index] = output.past_key_values
            logits.append(output.logits[:, -1, :vocabulary].float().cpu())
        tokens = choose(logits)
        for row, token in enumerate(tokens.tolist()):
            if open_rows[row]:
                generated[row].append(token)
                full = len(generated[row]) == room[row]
                open_rows[row] = not full and token not in end_ids
        if not any(open_rows):
            return generated
        ids = tokens[:, None].to(device)
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        # A finished row goes on with its batch; the models have no positions after the last.
        positions = (positions[:, -1:] + 1).clamp(max=max_length - 1)


def streams_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """A random stream a row, drawn on the CPU, so that a seed means the same on every device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(probabilities: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """One id a row from unnormalised probabilities [rows, vocabulary].

    One uniform number a row and token: a row's stream is used the same way in every batch.

    Raises:
        FloatingPointError: a row holds NaN or infinity, or nothing at all.
    """
    total = probabilities.sum(dim=-1)
    if not ((total > 0.0) & total.isfinite()).all():
        raise FloatingPointError("the distribution to sample from is not finite")
    uniform = torch.stack([torch.rand(1, generator=s, dtype=torch.float64) for s in streams])
    cumulative = probabilities.double().cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
