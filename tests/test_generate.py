"""Generation: the interface, and the transformers backend against independent oracles."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import TopPLogitsWarper

from kdbench.base.errors import UserError
from kdbench.base.store import read_jsonl
from kdbench.generate import (
    GREEDY,
    VLLM_CPU_HEAD_DIMS,
    Answer,
    Generator,
    check_head_dim,
    open_generator,
    write_generations,
)
from kdbench.generate.student import read_student
from kdbench.generate.transformers import nucleus
from tests.generate_models import (
    EOS,
    MAX_LENGTH,
    gpt2,
    llama,
    prompts,
    save,
    tokenizer,
    trained_llama,
)

PROMPTS = prompts(40)


@pytest.fixture(scope="module")
def model() -> Any:
    return trained_llama().eval()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    generator = open_generator("transformers", MAX_LENGTH)
    generator.load(folder)
    return generator


@pytest.fixture(scope="module")
def undecided() -> Any:
    return llama(0, tied=True).eval()


@pytest.fixture(scope="module")
def undecided_generator(undecided: Any, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    generator = open_generator("transformers", MAX_LENGTH)
    generator.load(save(undecided, tmp_path_factory.mktemp("undecided")))
    return generator


def sampled(generator: Generator, prompts: Sequence[Sequence[int]], **options: Any) -> list[Answer]:
    options = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12} | options
    options.setdefault("seeds", range(len(prompts)))
    return generator.generate(prompts, **options)


def next_token_probabilities(model: Any, prompt: list[int]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        probabilities = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    return np.asarray(probabilities)


def first_tokens(answers: list[Answer], size: int) -> np.ndarray[Any, Any]:
    counts = Counter(answer.token_ids[0] if answer.token_ids else EOS for answer in answers)
    return np.array([counts[token] for token in range(size)])


def goodness_of_fit(counts: Any, probabilities: Any) -> float:
    """The p-value of a chi-square test, tokens expected fewer than five times pooled."""
    expected = probabilities / probabilities.sum() * counts.sum()
    often = expected >= 5
    pooled = [np.append(x[often], x[~often].sum()) for x in (counts, expected)]
    keep = pooled[1] > 0
    return float(chisquare(pooled[0][keep], pooled[1][keep]).pvalue)


def test_greedy_answers_are_those_of_transformers_generate(
    model: Any, generator: Generator
) -> None:
    answers = sampled(generator, PROMPTS, temperature=0.0)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0]
        expected = [token for token in ids[len(prompt) :].tolist() if token != EOS]
        assert list(answer.token_ids) == expected


def test_an_answer_stops_at_the_end_token_and_does_not_contain_it(generator: Generator) -> None:
    answers = sampled(generator, PROMPTS, temperature=0.0)
    assert {answer.finish for answer in answers} == {"stop", "length"}
    for answer in answers:
        assert EOS not in answer.token_ids
        assert "<|end|>" not in answer.text
        assert answer.finish == ("length" if len(answer.token_ids) == 12 else "stop")


def test_an_answer_depends_on_its_seed_and_not_on_batch_or_order(generator: Generator) -> None:
    together = sampled(generator, PROMPTS)
    backwards = sampled(generator, PROMPTS[::-1], seeds=range(len(PROMPTS))[::-1])
    alone = [sampled(generator, [prompt], seeds=[i])[0] for i, prompt in enumerate(PROMPTS)]
    assert together == backwards[::-1] == alone


def test_prompts_with_different_seeds_get_different_answers(undecided_generator: Generator) -> None:
    answers = sampled(undecided_generator, [[5]] * 20)
    assert len({answer.token_ids for answer in answers}) > 15


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampling_follows_the_softmax(
    undecided: Any, undecided_generator: Generator, temperature: float
) -> None:
    answers = sampled(
        undecided_generator, [[5, 40]] * 8000, temperature=temperature, max_new_tokens=1
    )
    probabilities = next_token_probabilities(undecided, [5, 40]) ** (1 / temperature)
    counts = first_tokens(answers, len(probabilities))
    assert np.count_nonzero(counts) > 10
    assert goodness_of_fit(counts, probabilities) > 1e-4


def test_top_p_samples_the_renormalised_nucleus(
    undecided: Any, undecided_generator: Generator
) -> None:
    answers = sampled(undecided_generator, [[5, 40]] * 4000, top_p=0.8, max_new_tokens=1)
    probabilities = next_token_probabilities(undecided, [5, 40])
    order = np.argsort(-probabilities)
    size = int(np.searchsorted(probabilities[order].cumsum(), 0.8)) + 1
    probabilities[order[size:]] = 0.0
    counts = first_tokens(answers, len(probabilities))
    assert not counts[order[size:]].any()
    assert goodness_of_fit(counts, probabilities) > 1e-4


@given(st.lists(st.integers(-30, 30), min_size=1, unique=True), st.floats(0.01, 0.99))
def test_the_nucleus_is_that_of_transformers(logits: list[int], top_p: float) -> None:
    scores = torch.tensor([logits], dtype=torch.float64) / 4
    kept = nucleus(scores.softmax(-1), top_p) > 0
    expected = TopPLogitsWarper(top_p)(None, scores) > -float("inf")
    assert torch.equal(kept, expected)


def test_prompt_and_answer_never_exceed_the_maximum_length(tmp_path: Path) -> None:
    generator = open_generator("transformers", MAX_LENGTH)
    generator.load(save(gpt2(0), tmp_path))
    lengths = [1, 30, MAX_LENGTH - 2]
    answers = sampled(generator, [[7] * n for n in lengths], max_new_tokens=MAX_LENGTH)
    full = [a for a in answers if a.finish == "length"]
    assert full
    for length, answer in zip(lengths, answers, strict=True):
        assert length + len(answer.token_ids) <= MAX_LENGTH
        assert answer.finish == "stop" or length + len(answer.token_ids) == MAX_LENGTH


def test_ids_beyond_the_tokenizer_are_never_sampled(tmp_path: Path) -> None:
    known = tokenizer().get_vocab_size()
    generator = open_generator("transformers", MAX_LENGTH)
    generator.load(save(llama(0, tied=True, vocabulary=2 * known), tmp_path))
    answers = sampled(generator, [[5]] * 50)
    assert max(max(a.token_ids, default=0) for a in answers) < known


class Scripted:
    """A generator that answers with the seed it was given."""

    def __init__(self, forgets: int = 0) -> None:
        self.forgets = forgets

    def load(self, model_dir: Path) -> None: ...

    def close(self) -> None: ...

    def generate(
        self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], **_: Any
    ) -> list[Answer]:
        answers = [
            Answer((1, 2), f"{p[0]}:{s}", "stop") for p, s in zip(prompts, seeds, strict=True)
        ]
        return answers[: len(answers) - self.forgets]


DECODING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 4}


def test_a_file_has_one_row_per_decoding_seed_and_sample(tmp_path: Path) -> None:
    path = tmp_path / "generations" / "dolly.jsonl"
    write_generations(
        Scripted(), [[7], [8], [9]], path, set_name="dolly", decoding_seeds=(10, 20), **DECODING
    )
    rows = read_jsonl(path)
    assert [(r["decoding_seed"], r["sample"]) for r in rows] == [
        (seed, sample) for seed in (10, 20) for sample in range(3)
    ]
    assert [r["text"].split(":")[0] for r in rows] == ["7", "8", "9"] * 2
    assert all(r["n_tokens"] == 2 and r["finish"] == "stop" for r in rows)


def test_every_row_of_every_set_has_a_random_stream_of_its_own(tmp_path: Path) -> None:
    texts = []
    for name in ("dolly", "vicuna"):
        write_generations(
            Scripted(), [[7]] * 5, tmp_path / name, set_name=name, decoding_seeds=(1, 2), **DECODING
        )
        texts += [row["text"] for row in read_jsonl(tmp_path / name)]
    assert len(set(texts)) == 20


def test_a_missing_answer_fails_the_stage_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "dolly.jsonl"
    with pytest.raises(RuntimeError, match="exactly one per"):
        write_generations(
            Scripted(forgets=1),
            [[7], [8]],
            path,
            set_name="dolly",
            decoding_seeds=(GREEDY,),
            **DECODING,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt", [[], [5] * MAX_LENGTH], ids=["empty", "no room"])
def test_a_prompt_that_cannot_be_answered_is_refused(
    generator: Generator, prompt: list[int]
) -> None:
    with pytest.raises(UserError, match="prompt 1 has"):
        sampled(generator, [[5], prompt])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused_by_the_name_of_what_is_missing(
    tmp_path: Path, name: str
) -> None:
    (save(llama(0, tied=True), tmp_path) / name).unlink()
    with pytest.raises(UserError, match=name):
        read_student(tmp_path, MAX_LENGTH)


def test_a_model_with_too_few_positions_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=f"{MAX_LENGTH} positions"):
        read_student(folder, MAX_LENGTH + 1)


def test_the_end_tokens_of_the_generation_configuration_count(tmp_path: Path) -> None:
    save(llama(0, tied=True), tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    answer = read_student(tmp_path, MAX_LENGTH).answer([5, 0, 4, 6])
    assert (answer.token_ids, answer.finish) == ((5, 0), "stop")


@pytest.mark.parametrize("head_dim", VLLM_CPU_HEAD_DIMS)
def test_a_head_dimension_that_vllm_serves_passes(head_dim: int) -> None:
    check_head_dim(head_dim)


@pytest.mark.parametrize("head_dim", [16, 24, 48])
def test_another_head_dimension_is_refused_with_those_that_work(head_dim: int) -> None:
    with pytest.raises(UserError, match=rf"{head_dim}.*32, 64, 80"):
        check_head_dim(head_dim)


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'vllm', 'tokenizers'}"
    assert run_python(f"import sys, kdbench.generate; print({heavy} & set(sys.modules))") == "set()"


def test_a_missing_vllm_is_a_users_mistake_that_names_the_other_backend() -> None:
    code = """
import sys
sys.modules["vllm"] = None
from kdbench.base.errors import UserError
from kdbench.generate import open_generator
try:
    open_generator("vllm", 64)
except UserError as error:
    print(error)
"""
    assert "--backend transformers" in run_python(code)
