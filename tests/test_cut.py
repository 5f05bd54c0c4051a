"""`kdbench cut`: what each layer is worth."""

import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdbench.data.tokenizer import TOKENIZER_FILES
from kdbench.pipeline.artifacts import Artifacts
from tests.conftest import MICRO_SUITE, Cli


def test_a_layer_that_adds_nothing_costs_nothing_and_the_cheapest_is_left_out(
    cli: Cli, artifacts: Artifacts, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=artifacts.vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.model.layers[2].named_parameters():
        if "o_proj" in name or "down_proj" in name:
            torch.nn.init.zeros_(parameter)
    folder = tmp_path / "whole"
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (artifacts.tokenizer / name).is_file():
            shutil.copyfile(artifacts.tokenizer / name, folder / name)
    suite = MICRO_SUITE.replace("tokenizer: {vocabulary: 512, frame_tokens: true}\n", "")
    for role in ("teacher", "student"):
        start = suite.index(f"{role}:\n  architecture")
        end = suite.index("\n", suite.index("fit:", start)) + 1
        suite = f"{suite[:start]}{role}: {{path: {folder}}}\n{suite[end:]}"
    (tmp_path / "cut.yaml").write_text(suite)
    printed = cli("cut", "cut.yaml", "--drop", "1", "--rows", "16").stdout.splitlines()
    assert printed[0].startswith("all 4 layers: ")
    assert printed[3].startswith("without 2: ")
    assert printed[3].endswith("(+0.000)")
    losses = [float(line.split()[2]) for line in printed[1:5]]
    least = min(range(4), key=losses.__getitem__)
    assert printed[-1] == f"keep_layers: {[index for index in range(4) if index != least]}"
