"""docs/use-in-your-trainer.md, followed to the letter."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "docs" / "use-in-your-trainer.md").read_text(encoding="utf-8"),
    flags=re.DOTALL,
)
VOCABULARY = 17


def model(size: int, width: int) -> Any:
    torch.manual_seed(width)
    config = LlamaConfig(
        vocab_size=size, hidden_size=width, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batch(seed: int, prompt: int) -> dict[str, torch.Tensor]:
    tokens = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(seed))
    labels = tokens.clone()
    labels[:, :prompt] = -100
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the blocks take for granted; each adds what it defines, as on the page."""
    return {
        "student": model(VOCABULARY + 3, 8),
        "teacher": model(VOCABULARY + 5, 16),
        "tokenizer": range(VOCABULARY),
        "batches": [batch(0, 4), batch(1, 7)],
    }


def test_the_loops_run_one_after_another(names: dict[str, Any]) -> None:
    before = [parameter.clone() for parameter in names["student"].parameters()]
    for block in BLOCKS[:4]:
        exec(block, names)
    after = list(names["student"].parameters())
    assert not any(map(torch.equal, before, after))


def test_the_two_input_forms_give_the_same_loss(names: dict[str, Any]) -> None:
    hidden, logits = BLOCKS[:2]
    # The first block ends with a step of the optimiser; this is its loss on the last batch.
    exec(hidden.replace("optimizer.step()", "pass"), names)
    from_hidden = names["loss"].detach()
    exec(logits, names)
    torch.testing.assert_close(names["loss"].detach(), from_hidden, rtol=1e-5, atol=1e-6)


def test_the_pages_trainer_is_the_examples() -> None:
    example = (ROOT / "examples" / "distil_with_trainer.py").read_text(encoding="utf-8")
    shown, whole = (methods_of_trainer(ast.parse(text)) for text in (BLOCKS[4], example))
    assert shown == whole


def methods_of_trainer(tree: ast.Module) -> dict[str, list[str]]:
    """The statements of each method, without docstrings and annotations."""
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    assert found.name == "DistillationTrainer"
    return {
        method.name: [
            ast.unparse(line)
            for line in method.body
            if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        ]
        for method in found.body
        if isinstance(method, ast.FunctionDef)
    }
