"""A saved student as both backends need it: configuration, end tokens, detokeniser."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, PretrainedConfig

from kdbench.base.errors import UserError
from kdbench.data.ids import vocabulary_size
from kdbench.data.tokenizer import stop_ids
from kdbench.generate import Answer
from kdbench.models.remote_code import code_files


@dataclass(frozen=True)
class Student:
    """What is known of a model's folder without its weights."""

    path: Path
    config: PretrainedConfig
    config_text: str
    tensors: frozenset[str]
    eos_ids: frozenset[int]
    tokenizer: Tokenizer
    own_code: bool = False
    """The Python code in its folder runs."""

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        width = self.config.hidden_size // self.config.num_attention_heads
        return int(getattr(self.config, "head_dim", None) or width)

    @property
    def vocabulary(self) -> int:
        """Ids that the tokenizer knows; an output head may be padded beyond them."""
        return min(vocabulary_size(self.tokenizer), int(self.config.vocab_size))

    def answer(self, token_ids: Sequence[int]) -> Answer:
        """Cuts generated tokens at the first end-of-sequence token and decodes them."""
        end = next((i for i, token in enumerate(token_ids) if token in self.eos_ids), None)
        kept = tuple(token_ids[:end])
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Answer(kept, text, "length" if end is None else "stop")


def read_student(path: Path, max_length: int, *, trust_remote_code: bool = False) -> Student:
    """Reads a folder written by `save_pretrained` of a model and of its tokenizer.

    Raises:
        UserError: a file is missing, or the model has fewer than `max_length` positions.
    """
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (path / name).exists():
            raise UserError(f"{path}: not a saved model with its tokenizer, {name} is missing")
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < max_length:
        raise UserError(
            f"{path}: the model has {positions} positions, fewer than the maximum length of "
            f"{max_length}; shorten the suite's sequences"
        )
    with safe_open(path / "model.safetensors", framework="numpy") as weights:
        tensors = frozenset(weights.keys())
    return Student(
        path=path,
        config=config,
        config_text=(path / "config.json").read_text(encoding="utf-8"),
        tensors=tensors,
        eos_ids=stop_ids(path),
        tokenizer=Tokenizer.from_file(str(path / "tokenizer.json")),
        own_code=trust_remote_code and bool(code_files(path)),
    )


def answer_room(
    prompts: Sequence[Sequence[int]], max_new_tokens: int, max_length: int
) -> list[int]:
    """The most tokens that each answer may have.

    Raises:
        UserError: a prompt is empty or leaves no room for an answer.
    """
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) < max_length:
            raise UserError(
                f"prompt {index} has {len(prompt)} tokens; with a maximum length of {max_length} "
                f"it must have 1 to {max_length - 1}"
            )
    return [min(max_new_tokens, max_length - len(prompt)) for prompt in prompts]
