"""Answers of a student to prompts: two backends behind one interface.

Importing this package is cheap; `open_generator` imports the backend it is asked for. vLLM belongs
in a child process: once loaded in-process it makes `torch.set_num_threads` a no-op.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive
from kdbench.base.store import write_jsonl

Backend = Literal["vllm", "transformers"]

GREEDY = -1
"""The decoding seed that stands in the rows of greedy answers."""

VLLM_CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)


@dataclass(frozen=True)
class Answer:
    """What a student wrote; neither the ids nor the text contain the end-of-sequence token."""

    token_ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]


class Generator(Protocol):
    """One student at a time, many students one after another."""

    def load(self, model_dir: Path, *, trust_remote_code: bool = False) -> None:
        """Makes the student saved in `model_dir` (with its tokenizer.json) the current one.

        Raises:
            UserError: the folder is incomplete, or the backend cannot serve such a model.
        """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[Answer]:
        """Answers of the current student, one per prompt and in the prompts' order.

        Args:
            prompts: token ids, none empty.
            temperature: divides the logits before sampling; 0 is greedy decoding.
            top_p: samples from the smallest set of most likely tokens that holds this mass.
            max_new_tokens: the most tokens of an answer; prompt and answer together never exceed
                the generator's maximum length.
            seeds: one per prompt; an answer depends on its own seed, not on the batch or the order.

        Raises:
            UserError: a prompt is empty or leaves no room for an answer.
        """

    def close(self) -> None:
        """Gives the memory back; the generator is not used afterwards."""


def open_generator(backend: Backend, max_length: int, no_repeat_ngram_size: int = 0) -> Generator:
    """A generator for sequences of at most `max_length` tokens, prompt and answer together.

    With `no_repeat_ngram_size` n, from 2, no n tokens of a prompt and its answer stand in a row
    twice, but for those that the prompt repeats itself; 0 is off.

    Raises:
        UserError: the backend is not installed.
    """
    if backend == "vllm":
        from kdbench.generate.vllm import VllmGenerator

        return VllmGenerator(max_length, no_repeat_ngram_size)
    from kdbench.generate.transformers import TransformersGenerator

    return TransformersGenerator(max_length, no_repeat_ngram_size)


def write_generations(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    path: Path,
    *,
    set_name: str,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    decoding_seeds: Sequence[int],
) -> None:
    """Writes the current student's answers to one set under one decoding, whole or not at all.

    Each answer has its own random stream, derived from (decoding seed, set, sample): a stream
    shared by all prompts would correlate them. For greedy decoding, pass temperature 0 and
    `decoding_seeds=(GREEDY,)`.

    Raises:
        RuntimeError: the generator did not return exactly one answer per (sample, decoding seed).
    """
    keys = [(seed, sample) for seed in decoding_seeds for sample in range(len(prompts))]
    answers = generator.generate(
        [prompts[sample] for _, sample in keys],
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        seeds=[derive("generate", seed, set_name, sample) for seed, sample in keys],
    )
    if len(answers) != len(keys) or len(set(keys)) != len(keys):
        raise RuntimeError(
            f"{path}: {len(answers)} answers to {len(prompts)} prompts under decoding seeds "
            f"{list(decoding_seeds)}; exactly one per (sample, seed) is required"
        )
    write_jsonl(
        path,
        (
            {
                "sample": sample,
                "decoding_seed": seed,
                "text": answer.text,
                "n_tokens": len(answer.token_ids),
                "finish": answer.finish,
            }
            for (seed, sample), answer in zip(keys, answers, strict=True)
        ),
    )


def check_head_dim(head_dim: int) -> None:
    """Refuses a model that vLLM's CPU backend would fail on only when it generates.

    On a GPU nothing is refused here: which dimensions it serves depends on the card.

    Raises:
        UserError: naming the dimensions that it can serve.
    """
    import torch

    if not torch.cuda.is_available() and head_dim not in VLLM_CPU_HEAD_DIMS:
        raise UserError(
            f"head dimension {head_dim}: vLLM's CPU backend serves only "
            f"{', '.join(map(str, VLLM_CPU_HEAD_DIMS))}; change the model's width or number of "
            "heads, or use --backend transformers"
        )
