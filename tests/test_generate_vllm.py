"""The vLLM backend against transformers, the softmax, and itself with a fresh engine.

All of it runs in one spawned process, since in-process vLLM changes torch's thread settings.
"""

import importlib.util
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from kdbench.generate import VLLM_CPU_HEAD_DIMS, Answer, Generator, open_generator
from kdbench.generate.vllm import MAX_SEQUENCES
from tests.generate_models import (
    EOS,
    MAX_LENGTH,
    gpt2,
    llama,
    prompts,
    repetitive_prompts,
    save,
    tokenizer,
    trained_llama,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

PROMPTS = prompts(40)
NGRAM = 3
GREEDY: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 12}
SAMPLED: dict[str, Any] = GREEDY | {"temperature": 1.0}

_generators: dict[str, Generator] = {}


def answers_in_child(
    folders: Sequence[Path],
    prompts: Sequence[Sequence[int]],
    decodings: Sequence[dict[str, Any]],
    *,
    fresh: bool = False,
) -> list[list[Answer]]:
    """Answers of each student under each decoding, `fresh` with an engine of its own for each."""
    generator = _generators.setdefault("vllm", open_generator("vllm", MAX_LENGTH))
    answers = []
    for folder in folders:
        if fresh:
            generator.close()
        generator.load(folder)
        for decoding in decodings:
            options = {"seeds": range(len(prompts))} | decoding
            answers.append(generator.generate(prompts, **options))
    return answers


def banning_in_child(
    folder: Path, size: int, batches: Sequence[tuple[Sequence[Sequence[int]], dict[str, Any]]]
) -> list[list[Answer]]:
    """Answers to each batch of prompts under its decoding, no n-gram repeated."""
    name = f"vllm-{size}"
    generator = _generators.setdefault(name, open_generator("vllm", MAX_LENGTH, size))
    generator.load(folder)
    return [generator.generate(prompts, **decoding) for prompts, decoding in batches]


def engines_in_child(folders: Sequence[Path]) -> int:
    """How many engines serve these students one after another."""
    generator: Any = _generators.setdefault("vllm", open_generator("vllm", MAX_LENGTH))
    generator.close()
    engines = []
    for folder in folders:
        generator.load(folder)
        if not engines or engines[-1] is not generator.engine:
            engines.append(generator.engine)
    return len(engines)


def head_sizes_in_child() -> list[int]:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return list(CPUAttentionBackend.get_supported_head_sizes())


@pytest.fixture(scope="module")
def child() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("students")
    known = tokenizer().get_vocab_size()
    models = {"trained": trained_llama(), "deep": llama(3, tied=True, layers=3)}
    models["padded"] = llama(0, tied=True, vocabulary=2 * known)
    for seed in range(2):
        models[f"tied-{seed}"] = llama(seed, tied=True)
        models[f"untied-{seed}"] = llama(seed, tied=False)
        models[f"gpt2-{seed}"] = gpt2(seed)
    return {name: save(model, root / name) for name, model in models.items()}


def transformers_answers(folder: Path, prompts: Sequence[Sequence[int]]) -> list[Answer]:
    generator = open_generator("transformers", MAX_LENGTH)
    generator.load(folder)
    return generator.generate(prompts, seeds=range(len(prompts)), **GREEDY)


@pytest.mark.parametrize("name", ["trained", "untied-1", "gpt2-1", "padded"])
def test_greedy_answers_are_those_of_the_transformers_backend(
    child: ProcessPoolExecutor, students: dict[str, Path], name: str
) -> None:
    (answers,) = child.submit(answers_in_child, [students[name]], PROMPTS, [GREEDY]).result()
    assert answers == transformers_answers(students[name], PROMPTS)


@pytest.mark.parametrize("kind", ["tied", "untied", "gpt2"])
def test_a_swapped_student_answers_as_in_a_fresh_engine(
    child: ProcessPoolExecutor, students: dict[str, Path], kind: str
) -> None:
    folders = [students[f"{kind}-{i}"] for i in (0, 1)]
    order = [0, 1, 0]
    decodings = [GREEDY, SAMPLED]
    fresh = child.submit(answers_in_child, folders, PROMPTS, decodings, fresh=True).result()
    swapped = child.submit(
        answers_in_child, [folders[i] for i in order], PROMPTS, decodings
    ).result()
    assert swapped == [fresh[2 * i + j] for i in order for j in (0, 1)]
    assert fresh[:2] != fresh[2:]


def test_students_of_one_configuration_share_an_engine_and_others_get_their_own(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    names = ["tied-0", "tied-1", "deep"]
    assert child.submit(engines_in_child, [students[name] for name in names]).result() == 2


def test_an_answer_depends_on_its_seed_and_not_on_batch_or_order(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    def ask(prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        decoding = SAMPLED | {"seeds": seeds}
        (answers,) = child.submit(answers_in_child, [folder], prompts, [decoding]).result()
        return list(answers)

    folder, seeds = students["tied-0"], range(100, 100 + len(PROMPTS))
    together = ask(PROMPTS, seeds)
    backwards = ask(PROMPTS[::-1], seeds[::-1])
    alone = [ask([prompt], [seed])[0] for prompt, seed in zip(PROMPTS[:5], seeds[:5], strict=True)]
    assert together == backwards[::-1]
    assert together[:5] == alone


def test_no_ngram_is_repeated_and_greedy_answers_are_those_of_the_transformers_backend(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    # More than are decoded at a time, of many lengths: they end, move and are added at any step.
    prompts = repetitive_prompts(MAX_SEQUENCES + 40)
    decoding = GREEDY | {"max_new_tokens": MAX_LENGTH, "seeds": range(len(prompts))}
    for name in ("tied-0", "gpt2-0"):
        (found,) = child.submit(
            banning_in_child, students[name], NGRAM, [(prompts, decoding)]
        ).result()
        expected = []
        for size in (NGRAM, 0):
            generator = open_generator("transformers", MAX_LENGTH, size)
            generator.load(students[name])
            expected.append(generator.generate(prompts, **decoding))
        assert found == expected[0]
        changed = [banned != free for banned, free in zip(*expected, strict=True)]
        assert sum(changed) > len(prompts) / 4
        assert len({len(answer.token_ids) for answer in found}) > 3


def test_without_repeated_ngrams_an_answer_is_the_same_alone_and_in_a_batch(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    prompts = repetitive_prompts(MAX_SEQUENCES + 10)
    decoding = SAMPLED | {"temperature": 0.7, "max_new_tokens": 30}
    rows = range(5)
    batches = [(prompts, decoding | {"seeds": range(len(prompts))})]
    batches += [([prompts[row]], decoding | {"seeds": [row]}) for row in rows]
    together, *alone = child.submit(banning_in_child, students["tied-0"], NGRAM, batches).result()
    free = child.submit(answers_in_child, [students["tied-0"]], prompts, [decoding]).result()[0]
    assert [together[row] for row in rows] == [answer for (answer,) in alone]
    assert together != free


def test_sampling_follows_the_softmax_and_top_p_cuts_it_to_the_nucleus(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    one_step = SAMPLED | {"max_new_tokens": 1}
    full, cut = child.submit(
        answers_in_child, [students["tied-0"]], [[5]] * 8000, [one_step, one_step | {"top_p": 0.8}]
    ).result()
    model = llama(0, tied=True).eval()
    with torch.no_grad():
        probabilities = model(torch.tensor([[5]])).logits[0, -1].double().softmax(-1).numpy()
    order = np.argsort(-probabilities)
    nucleus = order[: int(np.searchsorted(probabilities[order].cumsum(), 0.8)) + 1]
    for answers, support in ((full, order), (cut, nucleus)):
        tokens = [answer.token_ids[0] if answer.token_ids else EOS for answer in answers]
        assert set(tokens) <= set(support.tolist())
        counts = np.bincount(tokens, minlength=len(probabilities))[support]
        expected = probabilities[support] / probabilities[support].sum() * len(tokens)
        often = expected >= 5
        observed, wanted = counts[often], expected[often]
        wanted = wanted * observed.sum() / wanted.sum()
        assert chisquare(observed, wanted).pvalue > 1e-4


def test_prompt_and_answer_never_exceed_the_maximum_length(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    lengths = [1, 30, MAX_LENGTH - 2]
    decoding = GREEDY | {"max_new_tokens": MAX_LENGTH}
    (answers,) = child.submit(
        answers_in_child, [students["gpt2-0"]], [[7] * n for n in lengths], [decoding]
    ).result()
    for length, answer in zip(lengths, answers, strict=True):
        total = length + len(answer.token_ids)
        assert total == MAX_LENGTH if answer.finish == "length" else total < MAX_LENGTH


def test_ids_beyond_the_tokenizer_are_never_sampled(
    child: ProcessPoolExecutor, students: dict[str, Path]
) -> None:
    (answers,) = child.submit(
        answers_in_child, [students["padded"]], [[5]] * 50, [SAMPLED]
    ).result()
    assert max(max(a.token_ids, default=0) for a in answers) < tokenizer().get_vocab_size()


def test_the_head_dimensions_are_those_of_vllms_cpu_backend(child: ProcessPoolExecutor) -> None:
    assert child.submit(head_sizes_in_child).result() == list(VLLM_CPU_HEAD_DIMS)
