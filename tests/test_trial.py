"""What a trial records of its training: whether anything is dropped at random in it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
)

from kdbench.config.schema import Lora
from kdbench.pipeline.trial import dropout_of

GPT2: dict[str, Any] = {"vocab_size": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
LLAMA: dict[str, Any] = {**SMALL, "intermediate_size": 16}
OPT: dict[str, Any] = {**SMALL, "word_embed_proj_dim": 8, "ffn_dim": 16}
OFF: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(**GPT2), 0.1),
        (GPT2Config(**GPT2, **OFF), 0.0),
        (OPTConfig(**OPT), 0.1),
        (GPTNeoXConfig(**LLAMA), 0.0),
        (LlamaConfig(**LLAMA), 0.0),
        (LlamaConfig(**LLAMA, attention_dropout=0.2), 0.2),
    ],
    ids=["gpt2", "gpt2-off", "opt", "neox", "llama", "llama-attention"],
)
def test_dropout_is_recorded_where_two_passes_of_a_training_differ(
    config: PreTrainedConfig, expected: float, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    assert dropout_of(tmp_path, None) == expected
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.train()
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        passes = [model(input_ids=tokens).logits for _ in range(2)]
    assert torch.equal(*passes) == (expected == 0.0)


def test_adapters_bring_their_own_dropout(tmp_path: Path) -> None:
    LlamaConfig(**LLAMA).save_pretrained(tmp_path)
    assert dropout_of(tmp_path, Lora(rank=2, alpha=4, dropout=0.3)) == 0.3
    assert dropout_of(tmp_path, Lora(rank=2, alpha=4)) == 0.0
