"""How a record becomes the text of a prompt, and which id ends a response."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, get_args

from kdbench.base.errors import UserError
from kdbench.config.schema import Template
from kdbench.data.ids import Controls, controls_of, held
from kdbench.data.record import Record, Turn

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n"
)
INPUT = "\n\n### Input:\n"
RESPONSE = "\n\n### Response:\n"
FRAME = (WITH_INPUT, WITHOUT_INPUT, INPUT, RESPONSE)
EOS = "<|endoftext|>"
USUAL_ENDS = (EOS, "</s>", "<|im_end|>", "<|eot_id|>")
"""What ends a response where the tokenizer's files do not name it, by preference."""


@dataclass(frozen=True)
class Frame:
    """What turns a record into token ids."""

    tokenizer: "Tokenizer"
    parts: Callable[[Record], tuple[str, ...]]
    """From a record to the prompt: text of the frame and of the record in turn, the frame's first.
    """
    end: int
    """The id that ends a response."""

    @cached_property
    def controls(self) -> Controls:
        """The tokenizer's control strings."""
        return controls_of(self.tokenizer)

    def render(self, record: Record) -> str:
        """The prompt's text."""
        return "".join(self.parts(record))


def frame_of(
    tokenizer: "Tokenizer | PreTrainedTokenizerFast",
    template: Template = "alpaca",
    options: Mapping[str, bool | str] | None = None,
) -> Frame:
    """The frame that a tokenizer and a template make; `options` are switches of a chat template.

    A tokenizer without an end of sequence or a chat template, and a template that does not know an
    option, inserts a date or fails, are UserErrors.
    """
    if template not in get_args(Template):
        raise UserError(f"template={template!r}: {' or '.join(get_args(Template))}")
    if options and template != "chat":
        raise UserError(f"template_options: {template} has none, only template: chat")
    fast = cast("Tokenizer", getattr(tokenizer, "backend_tokenizer", tokenizer))
    end: int | None = getattr(tokenizer, "eos_token_id", None)
    parts = _chat(tokenizer, options or {}) if template == "chat" else alpaca_parts
    return Frame(fast, parts, eos_id(fast) if end is None else end)


def prompt_text(instruction: str, input_text: str) -> str:
    """The Alpaca frame that MiniLLM, DistiLLM, ABKD and AMiD use."""
    return "".join(alpaca_parts(Record(instruction, input_text, ("",))))


def alpaca_parts(record: Record) -> tuple[str, ...]:
    """A record in the Alpaca frame, which has no place for a conversation (UserError)."""
    if record.turns:
        raise UserError(
            f"a conversation of {len(record.turns)} turns before the answer does not fit into the "
            "Alpaca frame, which asks one user turn: template: chat renders it"
        )
    if record.input:
        return WITH_INPUT, record.instruction, INPUT, record.input, RESPONSE
    return WITHOUT_INPUT, record.instruction, RESPONSE


def user_turn(instruction: str, input_text: str) -> str:
    """What the user says in a chat: the instruction, and the input a blank line below it."""
    return f"{instruction}\n\n{input_text}" if input_text else instruction


def eos_id(tokenizer: "Tokenizer") -> int:
    """The id that ends a response where the tokenizer's files do not name it."""
    for found in map(tokenizer.token_to_id, USUAL_ENDS):
        if found is not None:
            return int(found)
    raise UserError(f"the tokenizer has no end-of-sequence token ({EOS}, </s>, ...)")


def _chat(tokenizer: Any, options: Mapping[str, bool | str]) -> Callable[[Record], tuple[str, ...]]:
    """The turns before the answer and its opening, after a trial of one user turn."""
    if not hasattr(tokenizer, "apply_chat_template"):
        raise UserError("template: chat needs a fast tokenizer of transformers")
    try:
        text: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise UserError(
            "template: chat, but the tokenizer has no chat template. Put one beside it "
            "(chat_template.jinja, or chat_template in tokenizer_config.json), take an instruct "
            "model's tokenizer (tokenizer.path), or use the Alpaca frame "
            "(--set data.template=alpaca)"
        ) from error
    for option in options:
        if not re.search(rf"\b{re.escape(option)}\b", text):
            raise UserError(f"template_options: the tokenizer's chat template knows no '{option}'")
    if re.search(r"\|\s*random\b", text):
        raise UserError("the tokenizer's chat template draws at random: prompts have to be fixed")
    controls = controls_of(tokenizer.backend_tokenizer)

    def parts(record: Record) -> tuple[str, ...]:
        asked = Turn("user", user_turn(record.instruction, record.input))
        turns = record.turns or (asked,)
        rendered = _rendered(tokenizer, turns, options)
        if not (found := held(controls, *(turn.content for turn in turns))):
            return (rendered,)
        marks = [f"<kdbench turn {number}>" for number in range(len(turns))]
        marked = [Turn(turn.role, mark) for turn, mark in zip(turns, marks, strict=True)]
        frame = _rendered(tokenizer, marked, options)
        pieces = re.split("|".join(map(re.escape, marks)), frame)
        for said in ([turn.content for turn in turns], [turn.content.strip() for turn in turns]):
            mixed = [piece for pair in zip(pieces, said, strict=False) for piece in pair]
            if "".join(whole := (*mixed, pieces[-1])) == rendered:
                return whole
        raise UserError(
            f"the tokenizer's chat template does not keep a turn with {', '.join(found)} in one "
            "piece, so it cannot be asked as text: take it out of the record"
        )

    parts(Record("instruction", "input", ("output",)))
    return parts


def _rendered(tokenizer: Any, turns: Sequence[Turn], options: Mapping[str, bool | str]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            [asdict(turn) for turn in turns],
            tokenize=False,
            add_generation_prompt=True,
            strftime_now=_refuse_date,
            **options,
        )
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(turn.role for turn in turns)
        what = f"turns of {roles}" if len(turns) > 1 else "one user turn"
        raise UserError(f"the tokenizer's chat template cannot render {what}: {error}") from error
    return text


def _refuse_date(_: str) -> str:
    """Stands in for transformers' function of that name in templates."""
    raise UserError(
        "the tokenizer's chat template inserts today's date, and prompts have to be the same "
        'tomorrow; pin it, for most templates with template_options: {date_string: "26 Jul 2024"}'
    )
