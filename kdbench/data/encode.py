"""Records as token ids, and the flat arrays that training reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.schema import Data, Template, Truncation
from kdbench.data.ids import held, ids_of, ids_of_parts, plain
from kdbench.data.record import Record, Turn
from kdbench.data.template import Frame, frame_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast


def encode_prompt(
    frame: Frame, record: Record, max_prompt: int, truncation: Truncation = "ours"
) -> list[int]:
    """Token ids of a prompt, at most `max_prompt`.

    A long prompt loses the end of its input (of its instruction, where there is no input) and keeps
    the frame (`ours`); cut from the right, as the papers' code does, it loses "### Response:"
    (`published`). A conversation loses its oldest turns but the system's, then the end of its last.
    A frame that is to be kept and alone is longer is a UserError.
    """
    if truncation == "published":  # control strings of a record too, as in the papers' code
        return ids_of(frame.tokenizer, frame.render(record))[:max_prompt]
    ids = _ids(frame, record)
    while len(ids) > max_prompt:
        if (shorter := _shorter(frame, record, len(ids) - max_prompt)) is None:
            raise UserError(f"max_prompt={max_prompt} tokens do not hold the prompt's frame")
        record = shorter
        ids = _ids(frame, record)
    return ids


def _shorter(frame: Frame, record: Record, tokens: int) -> Record | None:
    """A record whose prompt is shorter by about so many tokens; None where nothing is left."""
    if record.turns:
        kept = [turn for turn in record.turns if turn.role == "system"]
        said = [turn for turn in record.turns if turn.role != "system"]
        if len(said) > 1:  # a template may want a user to begin
            later = [index for index, turn in enumerate(said) if index and turn.role == "user"]
            return replace(record, turns=(*kept, *said[later[0] if later else -1 :]))
        cut = _cut(frame, said[0].content, tokens) if said else None
        return None if cut is None else replace(record, turns=(*kept, Turn(said[0].role, cut)))
    if record.input:
        return replace(record, input=_cut(frame, record.input, tokens) or "")
    cut = _cut(frame, record.instruction, tokens)
    return None if cut is None else replace(record, instruction=cut)


def _cut(frame: Frame, text: str, tokens: int) -> str | None:
    """A text without its last tokens, at least a character shorter; None where nothing is left."""
    with plain(frame.tokenizer):
        pieces = frame.tokenizer.encode(text, add_special_tokens=False)
    keep = len(pieces.ids) - tokens
    if keep <= 0:
        return None
    cut = text[: pieces.offsets[keep - 1][1]]
    return cut if len(cut) < len(text) else text[:-1]


def encode_record(
    tokenizer: "Tokenizer | PreTrainedTokenizerFast",
    record: Record | Mapping[str, Any],
    *,
    max_prompt: int = 256,
    max_length: int = 512,
    truncation: Truncation = "ours",
    template: Template = "alpaca",
    template_options: Mapping[str, bool | str] | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of its gold response, end of sequence included.

    The response's ids are tokens(prompt + response)[len(tokens(prompt)):] + eos, cut at
    `max_length` in all. With `truncation="published"` they are those of MiniLLM's and DistiLLM's
    preprocessing (`tools/process_data_dolly.py`) and of the cut that their data sets make on
    loading.

    Args:
        tokenizer: of `tokenizers`, or a fast one of `transformers`, whose end of sequence is used.
        record: a `Record`, or a mapping with the fields of one, see `Record.of`.
        max_prompt: tokens.
        max_length: tokens of both.
        truncation: what a long prompt loses, see `encode_prompt`.
        template: the Alpaca frame, or `chat` for the chat template of a tokenizer of transformers.
        template_options: switches of that chat template.

    Raises:
        UserError: the frame alone is longer than `max_prompt`, and is to be kept; the record lacks
            a field; the tokenizer has no end of sequence or, for `chat`, no template that can be
            used; a chat is to be cut as published; `max_prompt` leaves no room for a response.
    """
    if truncation not in get_args(Truncation):
        raise UserError(f"truncation={truncation!r}: ours or published")
    if template == "chat" and truncation == "published":
        raise UserError("template: chat needs truncation: ours, which keeps the template whole")
    if max_prompt >= max_length:
        raise UserError(f"max_prompt={max_prompt} has to be below max_length={max_length}")
    if isinstance(record, Mapping):
        record = Record.of(record, "the record")
    frame = frame_of(tokenizer, template, template_options)
    prompt, response = _pair(frame, record, max_prompt, truncation)
    return prompt, response[: max_length - len(prompt)]


class RecordError(UserError):
    """A record that cannot be encoded.

    Attributes:
        number: among the records that were to be encoded, from 0.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


def encode_prompts(
    frame: Frame, records: Sequence[Record], max_prompt: int, truncation: Truncation
) -> list[list[int]]:
    """The token ids of each record's prompt, see `encode_prompt`.

    Raises:
        RecordError: a record cannot be encoded.
    """
    prompts = []
    for number, record in enumerate(records):
        try:
            prompts.append(encode_prompt(frame, record, max_prompt, truncation))
        except UserError as error:
            raise RecordError(number, str(error)) from error
    return prompts


@dataclass(frozen=True)
class Encoded:
    """A split as flat arrays: the ids of all sequences one after another."""

    tokens: "Tensor"
    """[total tokens], int64."""
    starts: "Tensor"
    """[rows + 1], where each sequence begins in `tokens`."""
    prompt_lengths: "Tensor"
    """[rows]."""

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> "Tensor":
        """Tokens of prompt and response, [rows]."""
        return self.starts[1:] - self.starts[:-1]

    @property
    def response_lengths(self) -> "Tensor":
        """Tokens of the response, end of sequence included, [rows]."""
        return self.lengths - self.prompt_lengths

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "Encoded":
        """The arrays of (prompt, response) pairs of token ids."""
        import torch

        lengths = torch.tensor([0, *(len(prompt) + len(response) for prompt, response in rows)])
        return Encoded(
            tokens=torch.tensor([token for row in rows for part in row for token in part]),
            starts=lengths.cumsum(0),
            prompt_lengths=torch.tensor([len(prompt) for prompt, _ in rows]),
        )

    def _row(self, row: int) -> list[int]:
        ids: list[int] = self.tokens[self.starts[row] : self.starts[row + 1]].tolist()
        return ids

    def prompt(self, row: int) -> list[int]:
        """The token ids of a row's prompt."""
        return self._row(row)[: self.prompt_lengths[row]]

    def response(self, row: int) -> list[int]:
        """The token ids of a row's response."""
        return self._row(row)[self.prompt_lengths[row] :]

    def first(self, rows: int) -> "Encoded":
        """The first so many rows."""
        end = int(self.starts[rows])
        return Encoded(self.tokens[:end], self.starts[: rows + 1], self.prompt_lengths[:rows])

    def save(self, path: Path) -> None:
        """Writes the arrays as one safetensors file."""
        from safetensors.torch import save

        store.write_bytes(path, save(self.arrays()))

    @staticmethod
    def load(path: Path) -> "Encoded":
        """Reads what `save` wrote."""
        from safetensors.torch import load_file

        return Encoded.from_arrays(load_file(path))

    def arrays(self) -> "dict[str, Tensor]":
        """The three arrays by name, for a file."""
        return {"tokens": self.tokens, "starts": self.starts, "prompts": self.prompt_lengths}

    @staticmethod
    def from_arrays(arrays: "Mapping[str, Tensor]") -> "Encoded":
        """The split whose `arrays` these are."""
        return Encoded(arrays["tokens"], arrays["starts"], arrays["prompts"])


def encode_split(frame: Frame, records: Sequence[Record], data: Data, name: str) -> Encoded:
    """Encodes the rows that fit into `max_length` whole; longer ones are left out.

    With `truncation: published` they are cut at `max_length` instead, as the papers' code does.
    A record that cannot be encoded is a RecordError.
    """
    rows = []
    for number, record in enumerate(records):
        try:
            prompt, response = _pair(frame, record, data.max_prompt, data.truncation)
        except UserError as error:
            raise RecordError(number, str(error)) from error
        room = data.max_length - len(prompt)
        if len(response) <= room or data.truncation == "published":
            rows.append((prompt, response[:room]))
    if not rows:
        raise UserError(f"{name}: no record fits into data.max_length={data.max_length} tokens")
    return Encoded.of(rows)


def _pair(
    frame: Frame, record: Record, max_prompt: int, truncation: Truncation
) -> tuple[list[int], list[int]]:
    """A prompt that is cut, and its response, which is not."""
    prompt = encode_prompt(frame, record, max_prompt, truncation)
    if truncation == "published":
        text = frame.render(record)
        asked, both = (ids_of(frame.tokenizer, part) for part in (text, text + record.target))
    else:
        asked, both = _ids(frame, record), _ids(frame, record, record.target)
    return prompt, [*both[len(asked) :], frame.end]


def _ids(frame: Frame, record: Record, answer: str = "") -> list[int]:
    """The ids of a prompt, and of an answer after it: a record's control strings are text."""
    said = [record.instruction, record.input, *(turn.content for turn in record.turns)]
    if not held(frame.controls, *said, record.target):
        return ids_of(frame.tokenizer, frame.render(record) + answer)
    return ids_of_parts(frame.tokenizer, frame.controls, (*frame.parts(record), answer))
