"""The probe on the architectures that people use, as tiny random models of transformers."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kdbench.base.errors import UserError
from kdbench.models.probe import check_computation

V = 64
LONGEST = 40
"""Beyond every window below."""
SIZE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LAYERS = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0]}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 8, "layer_types": LAYERS}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "sliding_window": 8, "layer_types": LAYERS}),
    "phi3": ("phi3", {}),
    "phi3-window": ("phi3", {"sliding_window": 8}),
    "gpt-neox": ("gpt_neox", {}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("qwen3_moe", {"num_experts": 4, "head_dim": 8, **EXPERTS}),
}


def make(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZE | changes)
    return AutoModelForCausalLM.from_config(config).eval()


def long_rope(**changes: Any) -> Any:
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **FACTORS}
    rope["original_max_position_embeddings"] = 32
    return make("phi3", rope_parameters=rope, original_max_position_embeddings=32, **changes)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_has_the_same_value_whatever_stands_beside_it(name: str) -> None:
    kind, changes = ARCHITECTURES[name]
    check_computation(make(kind, **changes), V, "student", LONGEST)


def test_frequencies_that_switch_within_the_rows_of_a_suite_are_refused() -> None:
    model = long_rope()
    check_computation(model, V, "teacher", 32)
    with pytest.raises(UserError, match=r"teacher: .*\(longrope\) change .* 32 tokens, .* have 33"):
        check_computation(model, V, "teacher", 33)


def test_dynamic_frequencies_are_refused_beyond_the_positions_of_the_model() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = make("llama", rope_parameters=rope)
    check_computation(model, V, "student", 128)
    with pytest.raises(
        UserError, match=r"student: .*\(dynamic\) change .* 128 tokens, .* have 129"
    ):
        check_computation(model, V, "student", 129)


def test_a_row_that_depends_on_its_neighbours_is_refused_whatever_the_model_states() -> None:
    """The same model, whose configuration no longer says what it computes."""
    model = long_rope()
    model.config = type(model.config)(**SIZE)
    assert model.model.config is not model.config
    with pytest.raises(UserError, match="computes a row of 8 tokens otherwise beside one of 39"):
        check_computation(model, V, "teacher", LONGEST)
