"""Trains two steps in a fresh process and prints what they took, beside the estimate.

What is trained is made by `prepare` before, in another process, whose memory does not count.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM

from kdbench.config.load import load_suite
from kdbench.config.schema import Diagnostics, Loss, Model, Recipe
from kdbench.data.encode import Encoded
from kdbench.data.template import EOS
from kdbench.head.teacher import fill
from kdbench.pipeline.estimate import at_most, memory_of
from kdbench.train.job import Job, Weights
from kdbench.train.loop import train
from kdbench.variants.variant import parse

VOCABULARY, LENGTH, ROWS = 8192, 128, 4
RECIPE = Recipe(steps=2, batch=ROWS, lr=0.001)


def prepare(folder: Path) -> None:
    """Writes a random student, a teacher's cache, and rows of random tokens."""
    data = _random_rows()
    data.save(folder / "train.safetensors")
    data.first(2).save(folder / "dev.safetensors")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    words = {EOS: 0, **{str(index): index for index in range(1, VOCABULARY)}}
    Tokenizer(models.WordLevel(words, unk_token=EOS)).save(str(folder / "model/tokenizer.json"))
    fill(model, VOCABULARY, {"train": data, "dev": data.first(2)}, folder / "cache")


def main(folder: Path) -> None:
    """Prints bytes as JSON: `estimate`, and `measured` above what the imports take."""
    before = _kilobytes("VmRSS")
    job = Job(
        variant=parse("forward-kl"),
        seed_key="memory",
        seed=0,
        recipe=RECIPE,
        loss=Loss(),
        diagnostics=Diagnostics(every=100, rows=2),
        initial=Weights(folder / "model"),
        train=folder / "train.safetensors",
        dev=folder / "dev.safetensors",
        teacher_cache=folder / "cache",
        vocabulary=VOCABULARY,
        max_new_tokens=8,
        max_length=LENGTH,
        out=folder / "out",
        micro_batch=ROWS,
    )
    with contextlib.suppress(KeyboardInterrupt):  # before the student is saved
        train(job, _stop_at_the_end)
    model = Model(path=str(folder / "model"))
    suite = load_suite("instruct").model_copy(
        update={"teacher": model, "student": model, "recipe": RECIPE}
    )
    estimate = memory_of(suite, at_most(LENGTH), rows=ROWS, gpu=False)["total"]
    print(json.dumps({"estimate": estimate, "measured": 1024 * (_kilobytes("VmHWM") - before)}))


def _stop_at_the_end(row: dict[str, float]) -> None:
    if row["step"] == row["steps"]:
        raise KeyboardInterrupt


def _random_rows() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    half = LENGTH // 2
    rows = torch.randint(1, VOCABULARY, (2 * ROWS, 2, half), generator=generator).tolist()
    return Encoded.of([(prompt, response) for prompt, response in rows])


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
