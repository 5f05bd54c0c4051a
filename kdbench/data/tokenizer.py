"""The tokenizer of a suite: an existing one, or a byte-level BPE trained on the suite's text."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from kdbench import store
from kdbench.data.encode import EOS, FRAME, prompt_text
from kdbench.data.records import Record


def train_tokenizer(
    records: Sequence[Record], folder: Path, *, vocabulary: int, frame_tokens: bool
) -> None:
    """Trains a byte-level BPE and writes it as transformers and vLLM expect it.

    Args:
        records: their prompts and answers are the training text.
        folder: gets `tokenizer.json` and `tokenizer_config.json`.
        vocabulary: number of ids, special tokens included.
        frame_tokens: makes each fixed part of the prompt's frame one token.
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
    """Reads `tokenizer.json` from a folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
