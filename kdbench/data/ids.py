"""Text to token ids: what a record says is text, whatever a tokenizer would read into it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.base.errors import UserError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer


@dataclass(frozen=True)
class Control:
    """A token that stands for no text, such as the end of a turn."""

    id: int
    takes_left: bool
    """It takes the white space before it with it."""
    takes_right: bool


Controls = Mapping[str, Control]
"""By what they look like in a text."""


def vocabulary_size(tokenizer: "Tokenizer") -> int:
    """The largest id and one more: ids may have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def ids_of(tokenizer: "Tokenizer", text: str) -> list[int]:
    """The ids of a text in which control strings are control ids, as `transformers` gives them."""
    with plain(tokenizer):
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def controls_of(tokenizer: "Tokenizer") -> Controls:
    """A tokenizer's control strings and what each stands for."""
    added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
    return {
        token.content: Control(token_id, token.lstrip, token.rstrip)
        for token_id, token in added.items()
        if token.special
    }


def held(controls: Controls, *texts: str) -> list[str]:
    """The control strings that texts hold."""
    return [control for control in controls if any(control in text for text in texts)]


def ids_of_parts(tokenizer: "Tokenizer", controls: Controls, parts: Sequence[str]) -> list[int]:
    """The ids of a text whose control strings count only where the frame wrote them.

    Args:
        tokenizer: of `tokenizers`.
        controls: its control strings.
        parts: text of the frame and text of a record in turn, the frame's first.

    Raises:
        UserError: the tokenizer cannot read a record's control string as text.
    """
    ids: list[int] = []
    written = set()
    with plain(tokenizer, split_special=True):
        for text, control in _pieces(controls, parts):
            ids += tokenizer.encode(text, add_special_tokens=False).ids
            if control is not None:
                written.add(len(ids))
                ids.append(control.id)
        read = tokenizer.decode(ids, skip_special_tokens=False)
    if names := ", ".join(held(controls, *parts[1::2])):
        known = {control.id for control in controls.values()}
        forged = any(one in known and place not in written for place, one in enumerate(ids))
        if forged or _letters(read) != _letters("".join(parts)):
            raise UserError(f"the tokenizer cannot read {names} as text: take it out of the record")
    return ids


def _pieces(controls: Controls, parts: Sequence[str]) -> Iterator[tuple[str, Control | None]]:
    """Each run of text and the control string of the frame that ends it, None at the very end."""
    longest_first = sorted(controls, key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
    run, before = "", None
    for index, part in enumerate(parts):
        for piece in [part] if index % 2 else pattern.split(part):
            control = None if index % 2 else controls.get(piece)
            if control is None:
                run += piece
                continue
            yield _stripped(run, before, control), control
            run, before = "", control
    yield _stripped(run, before, None), None


def _stripped(run: str, before: Control | None, after: Control | None) -> str:
    run = run.lstrip() if before is not None and before.takes_right else run
    return run.rstrip() if after is not None and after.takes_left else run


def _letters(text: str) -> str:
    """A text without its white space, which some tokenizers add and remove."""
    return "".join(text.split())


@contextmanager
def plain(tokenizer: "Tokenizer", *, split_special: bool = False) -> Iterator[None]:
    """Without the truncation and padding that somebody set, which are set again at the end.

    A tokenizer.json that a training script saved carries both, and `transformers` sets them anew at
    every call.
    """
    truncation, padding = tokenizer.truncation, tokenizer.padding
    splits = tokenizer.encode_special_tokens
    if truncation is not None:
        tokenizer.no_truncation()
    if padding is not None:
        tokenizer.no_padding()
    tokenizer.encode_special_tokens = split_special
    try:
        yield
    finally:
        tokenizer.encode_special_tokens = splits
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)
