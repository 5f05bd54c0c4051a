"""No n-gram twice in a prompt and its answer: transformers' `no_repeat_ngram_size`, kept up to date
token by token."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


class NGrams:
    """The n-grams of one growing sequence.

    Which tokens would repeat one is a look-up in a table that grows with the sequence, where
    transformers' NoRepeatNGramLogitsProcessor reads the whole sequence again at every step.
    """

    def __init__(self, size: int, ids: Iterable[int]) -> None:
        """Starts with a prompt's ids; `size` is at least 2."""
        self._prefix_length = size - 1
        self._prefix: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], list[int]] = {}
        self.extend(ids)

    def extend(self, ids: Iterable[int]) -> None:
        """Appends tokens to the sequence."""
        for token in ids:
            if len(self._prefix) == self._prefix_length:
                self._followers.setdefault(self._prefix, []).append(token)
            self._prefix = (*self._prefix, token)[-self._prefix_length :]

    @property
    def repeating(self) -> Sequence[int]:
        """The tokens that would complete an n-gram that the sequence already has."""
        return self._followers.get(self._prefix, ())


def ban(logits: Tensor, sequences: Mapping[int, NGrams]) -> None:
    """Gives the tokens that would repeat an n-gram a logit of minus infinity, in place.

    Args:
        logits: [rows, vocabulary].
        sequences: by row; rows that are not there stay as they are.
    """
    pairs = [(row, token) for row, ngrams in sequences.items() for token in ngrams.repeating]
    if pairs:
        rows, tokens = torch.tensor(pairs, device=logits.device).unbind(dim=1)
        logits[rows, tokens] = -torch.inf
