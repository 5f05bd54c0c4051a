"""Training without dropout is evaluation, and gradient checkpointing moves nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
)

from kdbench.models.model import hidden_states, layer_list, training_mode


def opt() -> OPTForCausalLM:
    """Its layers call dropout themselves."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
        word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5, max_position_embeddings=16,
    )  # fmt: skip
    return OPTForCausalLM(config)


def gpt2_with_dropout() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )


@pytest.mark.parametrize("make", [opt, gpt2_with_dropout])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_without_dropout_is_evaluation_and_keeps_gradient_checkpointing(
    make: Callable[[], Any], checkpointing: bool
) -> None:
    model, tokens = make().eval(), torch.arange(12)[None]
    wanted = hidden_states(model, tokens, torch.arange(12))
    wanted.square().sum().backward()
    grads = [value.grad.clone() for value in model.base_model.parameters()]
    model.zero_grad()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    parent, name = layer_list(model)
    calls: list[int] = []
    getattr(parent, name)[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with training_mode(model, dropout=False):
        found = hidden_states(model, tokens, torch.arange(12))
        found.square().sum().backward()
    assert torch.equal(found, wanted)
    for value, grad in zip(model.base_model.parameters(), grads, strict=True):
        torch.testing.assert_close(value.grad, grad)
    assert len(calls) == (2 if checkpointing else 1)
    assert not any(module.training for module in model.modules())
    with training_mode(model, dropout=True):
        assert not torch.equal(hidden_states(model, tokens, torch.arange(12)), wanted)
