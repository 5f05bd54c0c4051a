"""What one row of people's files means: what is asked, and the answers that count as right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.base.errors import UserError
from kdbench.config.schema import Column

LAYOUTS: tuple[dict[Column, str], ...] = (
    {"instruction": "instruction", "input": "input", "output": "output"},
    {"messages": "messages"},
    {"messages": "conversations"},
    {"instruction": "prompt", "input": "", "output": "completion"},
    {"instruction": "prompt", "input": "", "output": "response"},
)
"""What a row's fields are without a suite's `columns`: the first layout whose fields it has, the
input aside; "" is no field."""
FIELDS = {name for layout in LAYOUTS for name in layout.values()}
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""The roles of `from` in a ShareGPT conversation, as chat templates call them."""


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says."""

    role: str
    content: str


@dataclass(frozen=True)
class Record:
    """One item: what is asked, and the answers that count as right.

    Attributes:
        instruction: what is asked; of a conversation its transcript, for people to read.
        input: text that belongs to the instruction; may be empty.
        outputs: the answers; the first is trained on.
        turns: the conversation before the answer, where it is more than one user turn: it is
            rendered in the place of instruction and input.
    """

    instruction: str
    input: str
    outputs: tuple[str, ...]
    turns: tuple[Turn, ...] = ()

    @property
    def target(self) -> str:
        """The answer to train on: the first."""
        return self.outputs[0]

    @property
    def characters(self) -> int:
        """How long the prompt is, without its frame."""
        if self.turns:
            return sum(len(turn.content) for turn in self.turns)
        return len(self.instruction) + len(self.input)

    @staticmethod
    def of(row: Any, where: str, columns: Mapping[Column, str] | None = None) -> "Record":
        """The record that a row describes, by `columns`, else by the first layout that fits.

        Args:
            row: of a file, as JSON or Arrow gives it.
            where: file and row, for messages.
            columns: the names of the row's fields by `instruction`, `input`, `output` or
                `messages`; a name that is left out is its own.

        Raises:
            UserError: it is not an object, lacks a field, or a field is not text; with `where`.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: not a JSON object but {type(row).__name__}")
        layout = columns or _layout(row)
        if "messages" in layout:
            return _conversation(row, layout["messages"], where)
        instruction = layout.get("instruction", "instruction")
        context, output = layout.get("input", "input"), layout.get("output", "output")
        return _single(row, instruction, context, output, where)


def _layout(row: Mapping[str, Any]) -> Mapping[Column, str]:
    given = {name for name, value in row.items() if value is not None}
    for layout in LAYOUTS:
        if {name for column, name in layout.items() if column != "input"} <= given:
            return layout
    return LAYOUTS[0]


def _single(
    row: Mapping[str, Any], instruction: str, context: str, output: str, where: str
) -> Record:
    """A question and its answers; an empty name of the context says that there is none."""
    for field in (instruction, output):
        if field not in row:
            raise UserError(
                f"{where}: the field '{field}' is missing; the record has {', '.join(row)}: "
                "`columns:` beside the split's path says which of them is what"
            )
    outputs = row[output] if isinstance(row[output], list) else [row[output]]
    if not outputs:
        raise UserError(f"{where}: '{output}' is an empty list")
    extra = row.get(context)
    record = Record(row[instruction], "" if extra is None else extra, tuple(outputs))
    _check_text(record.instruction, f"{where}: '{instruction}'")
    _check_text(record.input, f"{where}: '{context}'")
    for text in outputs:
        _check_text(text, f"{where}: '{output}'")
    return record


def _conversation(row: Mapping[str, Any], field: str, where: str) -> Record:
    """A conversation up to its last assistant turn, which is the answer."""
    rows = row.get(field)
    if not isinstance(rows, list):
        raise UserError(f"{where}: '{field}' has to be a list of turns, not {type(rows).__name__}")
    turns = [
        _turn(turn, f"{where}: '{field}', turn {number}") for number, turn in enumerate(rows, 1)
    ]
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers or answers[-1] == 0:
        raise UserError(f"{where}: '{field}' has no assistant turn that answers another turn")
    asked, answer = tuple(turns[: answers[-1]]), (turns[answers[-1]].content,)
    if len(asked) == 1 and asked[0].role == "user":
        return Record(asked[0].content, "", answer)
    transcript = "\n\n".join(f"{turn.role}: {turn.content}" for turn in asked)
    return Record(transcript, "", answer, asked)


def _turn(row: Any, where: str) -> Turn:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: not an object but {type(row).__name__}")
    sharegpt = row.get("role") is None and row.get("from") is not None
    names = ("from", "value") if sharegpt else ("role", "content")
    for name in names:
        _check_text(row.get(name), f"{where}: '{name}'")
    role, content = (row[name] for name in names)
    if sharegpt and role not in SHAREGPT_ROLES:
        raise UserError(f"{where}: 'from' is none of {', '.join(SHAREGPT_ROLES)}: {role}")
    return Turn(SHAREGPT_ROLES[role] if sharegpt else role, content)


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise UserError(f"{what} has to be text, not {type(value).__name__}")
