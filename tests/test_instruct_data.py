"""The embedded suite's generator: reproducible, without leaks, and asking what it should."""

import hashlib
import json
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from kdbench.suites.instruct import generate
from kdbench.suites.instruct.sets import TASKS
from kdbench.suites.instruct.task import CATEGORIES
from kdbench.suites.instruct.world import FIRST_NAMES, SURNAMES

HELD_OUT = {"dev": 200, "dolly": 200, "self-inst": 200, "vicuna": 100}
SIZES = {"teacher": 20_000, "train": 800, **HELD_OUT}
GOLDEN = "2e8fb26b919a3f9901b0197f595923adacc12cf2d4dc6864e276c37f037dc0b0"
"""A change here moves every number of the suite: say so in the CHANGELOG."""

Sets = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("instruct")
    generate(path)
    return path


@pytest.fixture(scope="module")
def sets(folder: Path) -> Sets:
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in SIZES
    }


def test_the_bytes_of_seed_0_are_the_pinned_ones(folder: Path) -> None:
    files = b"".join((folder / f"{name}.jsonl").read_bytes() for name in SIZES)
    assert hashlib.sha256(files).hexdigest() == GOLDEN


def test_another_seed_writes_another_world(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, seed=1)
    assert (tmp_path / "train.jsonl").read_bytes() != (folder / "train.jsonl").read_bytes()


def test_every_set_has_its_size(sets: Sets) -> None:
    assert {name: len(records) for name, records in sets.items()} == SIZES


def test_no_held_out_prompt_recurs_anywhere(sets: Sets) -> None:
    seen = _prompts(sets["teacher"]) | _prompts(sets["train"])
    for name in HELD_OUT:
        prompts = _prompts(sets[name])
        assert len(prompts) == len(sets[name]), f"{name} repeats a prompt"
        assert not prompts & seen, f"{name} shares prompts with an earlier set"
        seen |= prompts


def test_every_first_name_and_surname_is_learned_and_no_held_out_pair_of_them(sets: Sets) -> None:
    learned, chosen_on = _names(sets["teacher"] + sets["train"]), _names(sets["dev"])
    assert {first for first, _ in learned} == set(FIRST_NAMES)
    assert {surname for _, surname in learned} == set(SURNAMES)
    assert not chosen_on & learned
    for name in ("dolly", "self-inst", "vicuna"):
        assert not _names(sets[name]) & (learned | chosen_on), name


@pytest.mark.parametrize("slots", sorted({t.slots for t in TASKS if "person" not in t.slots}))
def test_combinations_without_a_name_are_divided_too(sets: Sets, slots: tuple[str, ...]) -> None:
    asked = [t.asked + t.unseen for t in TASKS if t.slots == slots]
    patterns = [_pattern(text, slots) for phrasings in asked for text in phrasings]
    learned = _combinations(sets["teacher"] + sets["train"], patterns, slots)
    for name in HELD_OUT:
        assert not _combinations(sets[name], patterns, slots) & learned, name
    assert _combinations(sets["dolly"], patterns, slots)


def test_self_inst_uses_only_phrasings_that_training_never_saw() -> None:
    asked = {text for task in TASKS for text in task.asked}
    unseen = {text for task in TASKS for text in task.unseen}
    assert not asked & unseen


def test_self_inst_holds_recombined_tasks(sets: Sets) -> None:
    recombined = [_pattern(text, ()) for t in TASKS if not t.asked for text in t.unseen]
    hits = [r for r in sets["self-inst"] if any(p.fullmatch(r["instruction"]) for p in recombined)]
    assert len(hits) >= 40


@pytest.mark.parametrize("name", ["teacher", "train", "dev", "dolly", "self-inst"])
def test_all_eight_categories_are_there_in_fair_shares(sets: Sets, name: str) -> None:
    counts = Counter(record["category"] for record in sets[name])
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 0.5 * SIZES[name] / len(CATEGORIES)


def test_vicuna_wants_longer_answers(sets: Sets) -> None:
    assert _mean_words(sets["vicuna"]) > 1.4 * _mean_words(sets["dolly"])


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_items_have_several_different_references(sets: Sets, name: str) -> None:
    outputs = [record["output"] for record in sets[name]]
    assert all(len(set(references)) == len(references) >= 1 for references in outputs)
    assert sum(len(references) for references in outputs) / len(outputs) > 2


def test_one_prompt_has_several_answers_in_training(sets: Sets) -> None:
    answers: dict[tuple[str, str], set[str]] = {}
    for record in sets["teacher"]:
        answers.setdefault((record["instruction"], record["input"]), set()).add(record["output"])
    assert sum(len(outputs) > 1 for outputs in answers.values()) > 1_000


def test_a_passage_stands_exactly_where_the_task_is_to_read(sets: Sets) -> None:
    reading = {"closed_qa", "information_extraction", "summarization"}
    for record in chain(*sets.values()):
        assert bool(record["input"]) == (record["category"] in reading)


def test_passages_contain_what_closed_qa_asks(sets: Sets) -> None:
    for record in chain(*sets.values()):
        for answer in _outputs(record) if record["category"] == "closed_qa" else ():
            told = re.split(r" (?:lives in|eats) | and eats ", answer.rstrip("."))[1:]
            assert told
            assert all(value in record["input"].lower() for value in told), answer


def test_all_text_is_plain_ascii(sets: Sets) -> None:
    for record in chain(*sets.values()):
        text = " ".join([record["instruction"], record["input"], *_outputs(record)])
        assert re.fullmatch(r"[A-Za-z ,.:;?]+", text), text


def _outputs(record: dict[str, Any]) -> list[str]:
    output = record["output"]
    return [output] if isinstance(output, str) else list(output)


def _prompts(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(record["instruction"], record["input"]) for record in records}


def _names(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    pattern = re.compile(rf"\b({'|'.join(FIRST_NAMES)}) ({'|'.join(SURNAMES)})\b")
    texts = {f"{record['instruction']} {record['input']}" for record in records}
    return {name for text in texts for name in pattern.findall(text)}


def _pattern(template: str, slots: tuple[str, ...]) -> re.Pattern[str]:
    """A template's text as a regular expression that captures the slots by name."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            re.escape(part) if i % 2 == 0 else f"(?P<{part}>.+)" if part in slots else ".+"
            for i, part in enumerate(parts)
        )
    )


def _combinations(
    records: list[dict[str, Any]], patterns: list[re.Pattern[str]], slots: tuple[str, ...]
) -> set[tuple[str, ...]]:
    found = set()
    for instruction in {record["instruction"] for record in records}:
        for pattern in patterns:
            if match := pattern.fullmatch(instruction):
                found.add(match.group(*slots))
    return found


def _mean_words(records: list[dict[str, Any]]) -> float:
    outputs = [output for record in records for output in _outputs(record)]
    return sum(len(output.split()) for output in outputs) / len(outputs)
