"""Whether two tokenizers have one vocabulary, of whatever kind they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdbench.base.errors import UserError
from kdbench.pipeline.checks import check_same_vocabulary

BPE = {"vocab": {"a": 0, "b": 1}}
UNIGRAM = {"vocab": [["a", -1.0], ["b", -2.5]]}


def save(folder: Path, model: dict[str, Any], *added: tuple[str, int]) -> Path:
    folder.mkdir()
    tokens = [{"content": content, "id": index} for content, index in added]
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": tokens}))
    return folder


@pytest.mark.parametrize("model", [BPE, UNIGRAM], ids=["bpe", "unigram"])
def test_the_same_tokens_with_the_same_ids_are_one_vocabulary(
    model: dict[str, Any], tmp_path: Path
) -> None:
    check_same_vocabulary(save(tmp_path / "one", model), save(tmp_path / "two", model))


def test_an_added_token_that_stands_in_one_list_only_is_the_same_token(tmp_path: Path) -> None:
    both = {"vocab": {**BPE["vocab"], "<pad>": 2}}
    one = save(tmp_path / "one", both)
    check_same_vocabulary(one, save(tmp_path / "two", BPE, ("<pad>", 2)))


def test_an_added_token_of_one_model_alone_is_named(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", BPE), save(tmp_path / "two", BPE, ("<pad>", 2))
    with pytest.raises(UserError, match="for example '<pad>': no id and id 2"):
        check_same_vocabulary(one, two)


def test_equal_counts_with_other_ids_are_told_apart(tmp_path: Path) -> None:
    swapped = {"vocab": UNIGRAM["vocab"][::-1]}
    one, two = save(tmp_path / "one", UNIGRAM), save(tmp_path / "two", swapped)
    with pytest.raises(UserError, match=r"\(2 tokens\).*for example 'a': id 0 and id 1"):
        check_same_vocabulary(one, two)
