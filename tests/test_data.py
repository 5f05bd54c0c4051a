"""Records, the prompt's frame, truncation, and the order of batches."""

from itertools import count, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from kdbench.base.errors import UserError
from kdbench.config.load import load_suite
from kdbench.data.batches import batch_rows, collate, micro_batches, response_indices
from kdbench.data.encode import Encoded, encode_prompt, encode_record, encode_split
from kdbench.data.record import Record
from kdbench.data.template import EOS, FRAME, eos_id, frame_of, prompt_text
from kdbench.data.tokenizer import load_tokenizer, train_tokenizer

PANGRAM = "the quick brown fox jumps over lazy dog while seven wizards"
WORDS = PANGRAM.split()


@pytest.fixture(scope="module", params=[False, True], ids=["bytes", "frame-tokens"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    records = [Record(" ".join(WORDS[i:]), "", (" ".join(WORDS[:i]),)) for i in range(12)]
    train_tokenizer(records, folder, vocabulary=400, frame_tokens=request.param)
    return load_tokenizer(folder)


def test_record_round_trips_and_ends_with_eos(tokenizer: Tokenizer) -> None:
    record = Record("jump over", "the lazy dog", ("seven wizards boil jam", "another"))
    prompt, response = encode_record(tokenizer, record)
    text = tokenizer.decode(prompt + response, skip_special_tokens=False)
    assert text == prompt_text("jump over", "the lazy dog") + "seven wizards boil jam" + EOS
    assert response[-1] == eos_id(tokenizer)
    assert response.count(eos_id(tokenizer)) == 1


def test_frame_tokens_are_one_id_each(tmp_path: Path) -> None:
    train_tokenizer([Record("a b", "", ("c",))], tmp_path, vocabulary=300, frame_tokens=True)
    tokenizer = load_tokenizer(tmp_path)
    assert all(len(tokenizer.encode(part).ids) == 1 for part in FRAME)


@settings(max_examples=40, deadline=None)
@given(
    instruction=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join),
    context=st.text(max_size=150),
    room=st.integers(1, 60),
)
def test_long_prompts_keep_the_frame_and_lose_the_end_of_their_input(
    tokenizer: Tokenizer, instruction: str, context: str, room: int
) -> None:
    frame = len(tokenizer.encode(prompt_text("", "x")).ids)
    limit = frame + room
    ids = encode_prompt(frame_of(tokenizer), Record(instruction, context, ("x",)), limit)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert len(ids) <= limit
    assert text.startswith("Below is an instruction")
    assert text.endswith("\n\n### Response:\n")
    if len(tokenizer.encode(prompt_text(instruction, "x")).ids) <= limit:
        assert f"### Instruction:\n{instruction}\n\n" in text


def test_a_frame_that_does_not_fit_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="do not hold the prompt's frame"):
        encode_prompt(frame_of(tokenizer), Record("jump over the dog", "", ("x",)), 2)


def test_rows_that_do_not_fit_whole_are_left_out(tokenizer: Tokenizer) -> None:
    short, long = Record("fox", "", ("dog",)), Record("fox", "", ("dog " * 200,))
    length = sum(map(len, encode_record(tokenizer, short)))
    limits = (f"data.max_prompt={length - 1}", f"data.max_length={length}")
    limited = load_suite("dolly-tiny", limits).data
    data = encode_split(frame_of(tokenizer), [long, short, long], limited, "train")
    assert data.lengths.tolist() == [length]


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(LENGTHS, st.integers(1, 5))
def test_batches_predict_each_response_token_once_from_the_token_before(
    lengths: list[tuple[int, int]], size: int
) -> None:
    numbers = count(1)
    data = Encoded.of(
        [(list(islice(numbers, prompt)), list(islice(numbers, rest))) for prompt, rest in lengths]
    )
    rows = torch.arange(len(data)).flip(0)
    responses = [token for row in range(len(data)) for token in data.response(row)]
    batches = list(micro_batches(data, rows, size))
    assert sorted(int(x) for batch in batches for x in batch.labels) == responses
    for batch in [*batches, collate(data, rows)]:
        assert (batch.tokens.flatten()[batch.positions] + 1 == batch.labels).all()
        indices = response_indices(data, batch.rows)
        assert torch.tensor(responses)[indices].tolist() == batch.labels.tolist()


@given(st.integers(1, 40), st.integers(1, 64), st.integers(0, 5), st.integers(1, 8))
def test_each_epoch_shows_every_row_once(rows: int, batch: int, seed: int, epochs: int) -> None:
    steps = -(-rows * epochs // batch)
    drawn = [batch_rows(rows, batch, step, suite="s", seed=seed) for step in range(steps)]
    order = torch.cat(drawn)
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))


def test_order_depends_on_suite_and_seed() -> None:
    keys = [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0), (0, "a", 0)]
    orders = [batch_rows(50, 50, step, suite=s, seed=seed).tolist() for step, s, seed in keys]
    assert orders[0] == orders[-1]
    assert all(order != orders[0] for order in orders[1:-1])
