"""The tokenizer of a suite: an existing one, or a byte-level BPE trained on the suite's text."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.schema import Data
from kdbench.data.ids import controls_of, ids_of
from kdbench.data.record import Record
from kdbench.data.template import EOS, FRAME, Frame, alpaca_parts, eos_id, frame_of, prompt_text

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What a tokenizer's folder holds, and what goes wherever a tokenizer goes; the first has to."""


def train_tokenizer(
    records: Sequence[Record], folder: Path, *, vocabulary: int, frame_tokens: bool
) -> None:
    """Trains a byte-level BPE on prompts and answers; its files are for transformers and vLLM.

    `vocabulary` counts the special tokens too; with `frame_tokens` each fixed part of the prompt's
    frame is one of them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(EOS, special=True)]
    if frame_tokens:
        special += [AddedToken(part, special=True, normalized=False) for part in FRAME]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    frame = "" if frame_tokens else prompt_text("", "")
    texts = (
        f"{frame}{record.instruction}\n{record.input}\n{output}"
        for record in records
        for output in record.outputs
    )
    tokenizer.train_from_iterator(texts, trainer)
    store.write_text(folder / "tokenizer.json", tokenizer.to_str())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": EOS}
    store.write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads `tokenizer.json` from a folder; a missing or broken one is a UserError."""
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"{path}: no tokenizer that can be read: {error}") from error


def end_id(folder: Path) -> int:
    """The id that ends a response: in training, in generation and on policy.

    It is the `eos_token` of `tokenizer_config.json`; one of the usual ones where none is named. A
    token that the tokenizer does not have is a UserError.
    """
    tokenizer = load_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    named = store.read_json(path).get("eos_token") if path.is_file() else None
    token = named["content"] if isinstance(named, dict) else named
    if not token:
        return eos_id(tokenizer)
    if (found := tokenizer.token_to_id(token)) is None:
        raise UserError(f"{path}: eos_token {token} is no token of tokenizer.json")
    return int(found)


def stop_ids(folder: Path) -> frozenset[int]:
    """The ids at which a model's own answers stop, on policy and in generation.

    Those that the model states, of which `end_id` is one; `end_id` alone where it states none.
    """
    return stated_ends(folder) or frozenset([end_id(folder)])


def stated_ends(folder: Path) -> frozenset[int]:
    """The `eos_token_id` of a saved model: of its generation configuration, else of its other."""
    for name in ("generation_config.json", "config.json"):
        config = store.read_json(folder / name) if (folder / name).is_file() else {}
        if (ids := config.get("eos_token_id")) is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()


def tokenizer_remarks(folder: Path, data: Data) -> list[str]:
    """One sentence for each thing in a given tokenizer that is allowed and yet moves scores."""
    frame, found = read_frame(folder, data), []
    with_special = frame.tokenizer.encode("x").ids
    plain = frame.tokenizer.encode("x", add_special_tokens=False).ids
    if data.template == "alpaca" and with_special[:1] != plain[:1]:
        begin = frame.tokenizer.id_to_token(with_special[0])
        found.append(
            f"the tokenizer puts {begin} before a text; prompts in the Alpaca frame have "
            "none, as in the papers' code"
        )
    if data.template == "chat":
        ends = sorted(end for end in _turn_ends(folder, data) if end != frame.end)
        if ends:
            trained, written = (frame.tokenizer.id_to_token(end) for end in (frame.end, ends[0]))
            found.append(
                f"students are trained to end an answer with {trained} (eos_token), and the chat "
                f"template ends one with {written}"
            )
    return found


def _turn_ends(folder: Path, data: Data) -> set[int]:
    """The control id that the chat template writes behind an assistant's turn, if it writes any."""
    from transformers import PreTrainedTokenizerFast

    chatting = PreTrainedTokenizerFast.from_pretrained(folder)
    turns = [{"role": "user", "content": "Say"}, {"role": "assistant", "content": "answer"}]
    text = str(chatting.apply_chat_template(turns, tokenize=False, **data.template_options))
    _, said, behind = text.rpartition("answer")
    ids = ids_of(chatting.backend_tokenizer, behind.strip()) if said else []
    return set(ids[:1]) & {
        control.id for control in controls_of(chatting.backend_tokenizer).values()
    }


def read_frame(folder: Path, data: Data) -> Frame:
    """How a suite turns its records into token ids; a folder's tokenizer may not do (UserError)."""
    frame = Frame(load_tokenizer(folder), alpaca_parts, end_id(folder))
    if data.template == "alpaca":
        return frame
    from transformers import PreTrainedTokenizerFast

    # Only for its template: the ids come from tokenizer.json, as everywhere else.
    chatting = PreTrainedTokenizerFast.from_pretrained(folder)
    try:
        parts = frame_of(chatting, data.template, data.template_options).parts
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return replace(frame, parts=parts)
