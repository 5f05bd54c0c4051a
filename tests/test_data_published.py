"""Token ids as the papers' preprocessing makes them, against a rewrite of it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from kdbench.config.identity import canonical
from kdbench.config.load import load_suite
from kdbench.data import Record, encode_record
from kdbench.data.encode import encode_split
from kdbench.data.template import frame_of
from kdbench.data.tokenizer import load_tokenizer, train_tokenizer
from tests.conftest import DATA_DIR

GPT2 = DATA_DIR.parent / "tokenizers/gpt2/tokenizer.json"
OPENING = "Below is an instruction that describes a task"
MIDDLE = "Write a response that appropriately completes the request.\n\n### Instruction:\n"


def published_ids(
    tokenizer: PreTrainedTokenizerFast, row: dict[str, Any], max_prompt: int, max_length: int
) -> tuple[list[int], list[int]]:
    """What the published script stores, and the cut that the published data set makes."""
    paired, context = "", ""
    if row.get("input"):
        paired = ", paired with an input that provides further context"
        context = f"\n\n### Input:\n{row['input']}"
    prompt = f"{OPENING}{paired}. {MIDDLE}{row['instruction']}{context}\n\n### Response:\n"
    first = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + row["output"], add_special_tokens=False)
    answer = [*whole, tokenizer.eos_token_id][len(first) :]
    stored = first[:max_prompt]
    return stored, (stored + answer)[:max_length][len(stored) :]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = ["count the words", " the words of", "a word, and a word\n"]
    records = [Record(text * 3, text, (text,)) for text in texts]
    train_tokenizer(records, folder, vocabulary=320, frame_tokens=False)
    return load_tokenizer(folder)


TEXT = st.text(max_size=60)


@settings(max_examples=60, deadline=None)
@given(instruction=TEXT, context=TEXT, output=TEXT, max_prompt=st.integers(1, 400))
def test_published_ids_are_those_of_the_published_script(
    small: Tokenizer, instruction: str, context: str, output: str, max_prompt: int
) -> None:
    row = {"instruction": instruction, "input": context, "output": output}
    theirs = PreTrainedTokenizerFast(tokenizer_object=small, eos_token="<|endoftext|>")
    wanted = published_ids(theirs, row, max_prompt, max_prompt + 40)
    limits = {"max_prompt": max_prompt, "max_length": max_prompt + 40}
    assert encode_record(small, row, truncation="published", **limits) == wanted
    assert encode_record(theirs, row, truncation="published", **limits) == wanted


@pytest.mark.skipif(not GPT2.is_file(), reason="KDBENCH_DATA_DIR names no folder with Dolly")
def test_dolly_has_the_published_ids() -> None:
    ours = Tokenizer.from_file(str(GPT2))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(GPT2), eos_token="<|endoftext|>")
    for file, step in (("train", 40), ("dev", 10)):
        lines = (DATA_DIR / f"dolly/{file}.jsonl").read_text(encoding="utf-8").split("\n")
        for line in [line for line in lines if line][::step]:
            row = json.loads(line)
            assert encode_record(ours, row, truncation="published") == published_ids(
                theirs, row, 256, 512
            )


def test_long_rows_are_cut_where_truncation_is_published(small: Tokenizer) -> None:
    rows = [Record("count", "", ("word " * 300,)), Record("count " * 200, "", ("word",))]
    limits = ("data.max_prompt=200", "data.max_length=220", "data.truncation=published")
    data = encode_split(frame_of(small), rows, load_suite("dolly-tiny", limits).data, "train")
    assert data.lengths[0] == 220
    assert data.prompt_lengths[1] == 200


def test_pins_are_there_and_stay_out_of_a_suites_digest() -> None:
    pinned = load_suite("dolly-tiny")
    free = load_suite("dolly-tiny", ["data.train.sha256=", "data.train.records="])
    assert pinned.data.train.sha256
    assert not free.data.train.sha256
    assert canonical(free) == canonical(pinned)
