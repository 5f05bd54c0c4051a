"""Whether a given model computes what training and sampling take it to compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.models.model import head_of, hidden_states
from kdbench.models.sampling import decode

LENGTHS = (8, 5)
"""Of the short rows that are tried, beside one of half and one of the full length."""
KEPT = 4
"""Positions of a row whose logits are compared: those at its end."""
FINE, COARSE = 0.01, 0.5
"""Nats by which rounding may move a log-probability, in float32 and in 16 bits."""
NOTHING = -50.0
"""Below it log-probabilities are alike."""
SWITCHING = ("longrope", "dynamic")
"""Position embeddings whose frequencies follow from the longest row of a batch."""


@torch.no_grad()
def check_computation(model: Any, vocabulary: int, name: str, longest: int) -> None:
    """Holds a model as it is used here against its own forward pass of one row at a time.

    Training takes the body's hidden states of rows of mixed length and forms the logits itself;
    sampling gives positions, a mask and a cache. A model whose own code does something between body
    and head, that takes no such arguments, or that reads a row in another way beside a longer one,
    would be trained or sampled from wrongly.

    Args:
        model: in evaluation mode.
        vocabulary: ids that the tokenizer knows.
        name: of the model in messages.
        longest: tokens of the longest row that the suite may give it.

    Raises:
        UserError: it does not compute the same, or cannot be called so.
    """
    _check_frequencies(model.config, name, longest)
    longest = min(longest, getattr(model.config, "max_position_embeddings", None) or longest)
    lengths = [*LENGTHS, *(n for n in (longest // 2, longest - 1) if n > max(LENGTHS))]
    ids = torch.arange(sum(lengths), device=model.device) % vocabulary
    rows = list(torch.split(ids, lengths))
    sampled: list[Tensor] = []

    def own_logits(row: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=row[None], logits_to_keep=KEPT).logits
        return logits[0, -KEPT:, :vocabulary]

    def our_logits(some: list[Tensor]) -> list[Tensor]:
        width = max(len(row) for row in some)
        tokens = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in some])
        ends = torch.tensor([len(row) + index * width for index, row in enumerate(some)])
        positions = (ends[:, None] + torch.arange(-KEPT, 0)).flatten().to(model.device)
        logits = head_of(model, vocabulary).logits(hidden_states(model, tokens, positions))
        return list(torch.split(logits, KEPT))

    def choose(logits: list[Tensor]) -> Tensor:
        sampled.append(logits[0])
        return logits[0].argmax(dim=-1)

    try:
        own = [own_logits(row) for row in rows]
        ours = [our_logits([row])[0] for row in rows]
        beside = our_logits(rows)
        responses = decode(
            [model],
            [row.tolist() for row in rows],
            [2] * len(rows),
            choose,
            vocabulary=vocabulary,
            end_ids=frozenset(),
            max_length=longest + 1,
        )
        # A row of the full length has no position for what follows it.
        short = len(LENGTHS)
        longer = [
            own_logits(torch.cat([row, row.new_tensor(response[:1])]))
            for row, response in zip(rows[:short], responses[:short], strict=True)
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
    for row, alone, together in zip(rows, own, beside, strict=True):
        if not _difference([alone], [together]) <= tolerance:
            raise UserError(
                f"{name}: {type(model).__name__} computes a row of {len(row)} tokens otherwise "
                f"beside one of {max(lengths)}: its values would depend on the micro-batch, and "
                "samples would be another model's"
            )
    first, second = (list(logits[:, None]) for logits in sampled[:2])
    for last, found in ((own, first), (longer, second[: len(longer)])):
        if not _difference([logits[-1:] for logits in last], found) <= tolerance:
            raise UserError(
                f"{name}: {type(model).__name__} does not heed the positions, the mask or the "
                "cache of prompts that are padded on the left, so that it cannot be sampled from "
                "in batches"
            )


def _check_frequencies(config: Any, name: str, longest: int) -> None:
    """Refuses position embeddings that change within the suite's rows.

    By what the model states of itself: the difference may hide in the rounding of 16 bits.
    """
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in (stated, *(item for item in stated.values() if isinstance(item, dict))):
        kind = rope.get("rope_type") or rope.get("type")
        border = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        border = border or getattr(config, "max_position_embeddings", None) or longest
        if kind in SWITCHING and longest > border:
            raise UserError(
                f"{name}: its position embeddings ({kind}) change for all rows of a batch where "
                f"one has more than {border} tokens, and rows of this suite may have {longest}: a "
                "row's value would depend on its neighbours, and a sample that crosses the border "
                "would be another model's; set data.max_length, and data.max_prompt plus "
                f"decoding.max_new_tokens, to at most {border}"
            )


def _difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest between two log-probabilities, in nats."""
    first, second = (
        torch.cat(list(parts)).float().cpu().log_softmax(dim=-1).clamp(min=NOTHING)
        for parts in (one, other)
    )
    return float((first - second).abs().max())
