"""`no_repeat_ngram_size`: transformers is the oracle of the table and of greedy answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import NoRepeatNGramLogitsProcessor

from kdbench.base.errors import UserError
from kdbench.config.identity import canonical, differences
from kdbench.config.schema import Decoding
from kdbench.generate import Answer, Generator, check_head_dim, open_generator
from kdbench.generate.ngrams import NGrams, ban
from kdbench.generate.vllm import gpu_share
from tests.generate_models import EOS, MAX_LENGTH, llama, repetitive_prompts, save

SIZE = 3
NEW_TOKENS = 30
PROMPTS = repetitive_prompts(30)


@pytest.fixture(scope="module")
def model() -> Any:
    return llama(0, tied=True).eval()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("student"))


def opened(folder: Path, size: int) -> Generator:
    generator = open_generator("transformers", MAX_LENGTH, size)
    generator.load(folder)
    return generator


def answers(
    generator: Generator, prompts: list[list[int]], temperature: float, seeds: list[int]
) -> list[Answer]:
    return generator.generate(
        prompts, temperature=temperature, top_p=1.0, max_new_tokens=NEW_TOKENS, seeds=seeds
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 40), st.integers(2, 5))
def test_the_banned_tokens_are_those_of_transformers(
    ids: list[int], prompt_length: int, size: int
) -> None:
    ngrams = NGrams(size, ids[:prompt_length])
    for token in ids[prompt_length:]:
        ngrams.extend([token])
    scores, ours = torch.zeros(1, 4), torch.zeros(3, 4)
    ban(ours, {1: ngrams})
    expected = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), scores)
    assert torch.equal(ours, torch.cat([scores, expected, scores]))


def test_greedy_answers_are_those_of_transformers_generate_and_the_ban_acts(
    model: Any, folder: Path
) -> None:
    seeds = list(range(len(PROMPTS)))
    found = answers(opened(folder, SIZE), PROMPTS, 0.0, seeds)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            no_repeat_ngram_size=SIZE,
        )[0]
        expected = [token for token in ids[len(prompt) :].tolist() if token != EOS]
        assert list(answer.token_ids) == expected
    free = answers(opened(folder, 0), PROMPTS, 0.0, seeds)
    assert sum(one != other for one, other in zip(found, free, strict=True)) > len(PROMPTS) / 4


def test_a_sampled_answer_is_the_same_alone_and_in_a_batch(folder: Path) -> None:
    seeds = list(range(len(PROMPTS)))
    generator = opened(folder, SIZE)
    together = answers(generator, PROMPTS, 0.7, seeds)
    alone = [answers(generator, [PROMPTS[row]], 0.7, [row])[0] for row in range(8)]
    assert together[:8] == alone
    assert together != answers(opened(folder, 0), PROMPTS, 0.7, seeds)


def test_it_is_part_of_a_scores_identity() -> None:
    assert canonical(Decoding(no_repeat_ngram_size=6)) != canonical(Decoding())
    found = differences(Decoding(), Decoding(no_repeat_ngram_size=6))
    assert found == ["no_repeat_ngram_size: 0 -> 6"]


def test_a_size_that_bans_the_whole_prompt_is_refused() -> None:
    with pytest.raises(ValidationError, match="1 bans all tokens of the prompt"):
        Decoding(no_repeat_ngram_size=1)


def test_vllm_gets_half_of_a_cards_free_memory_or_what_is_asked() -> None:
    assert gpu_share("", free=60, total=80) == 0.375
    assert gpu_share("0.6", free=60, total=80) == 0.6


@pytest.mark.parametrize("asked", ["0", "1.5", "half", "nan"])
def test_a_share_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(UserError, match="KDBENCH_GPU_MEMORY="):
        gpu_share(asked, free=1, total=1)


def test_no_head_dimension_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_head_dim(24)
