"""Small saved models for the tests of generation."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

MAX_LENGTH = 64
EOS = 0
SUBJECTS = ("the cat", "a dog", "the old king", "my sister")
VERBS = ("sees", "likes", "paints", "remembers")
OBJECTS = ("the river", "a blue house", "two green apples", "the city at night")


def sentences() -> list[str]:
    """All sentences of the toy language."""
    return [f"{s} {v} {o}." for s in SUBJECTS for v in VERBS for o in OBJECTS]


def tokenizer() -> Tokenizer:
    """A byte-level BPE of the toy language; its id 0 ends a text."""
    result = Tokenizer(models.BPE())
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    result.train_from_iterator(sentences(), trainer)
    return result


def prompts(count: int) -> list[list[int]]:
    """Beginnings of sentences, of many lengths, none with an end token."""
    rng = random.Random(0)
    encoded = [
        tokenizer().encode(" ".join(rng.choices(sentences(), k=2))).ids for _ in range(count)
    ]
    return [ids[: rng.randint(1, len(ids) - 2)] for ids in encoded]


def repetitive_prompts(count: int) -> list[list[int]]:
    """Prompts, each followed by its own beginning: a model that repeats has what to repeat."""
    return [ids[:8] + ids[:6] + ids[:3] for ids in prompts(count)]


def llama(
    seed: int, *, tied: bool, vocabulary: int = 0, layers: int = 2, spread: float = 0.2
) -> Any:
    """An untrained Llama whose logits are far apart, so that no answer hangs on rounding."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary or tokenizer().get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=tied,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def gpt2(seed: int) -> Any:
    """An untrained GPT-2 with tied embeddings."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=tokenizer().get_vocab_size(),
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=MAX_LENGTH,
        initializer_range=0.2,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return GPT2LMHeadModel(config)


def trained_llama() -> Any:
    """A Llama that has learnt the toy language, and to end a text after two sentences."""
    model, rng = llama(0, tied=True, spread=0.02), random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    encoder = tokenizer()
    for _ in range(60):
        texts = [" ".join(rng.choices(sentences(), k=2)) for _ in range(16)]
        rows = [[*encoder.encode(text).ids, EOS] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [EOS] * (width - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def save(model: Any, folder: Path) -> Path:
    """Saves a model as a trial does, with the tokenizer beside it."""
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    return folder
