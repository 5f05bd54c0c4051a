"""Whether two tokenizers have one vocabulary, of whatever kind they are."""

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models

from kdbench.base.errors import UserError
from kdbench.pipeline.checks import check_same_vocabulary

WORDS = {"a": 0, "b": 1}
BPE = models.BPE(WORDS, [])
UNIGRAM = models.Unigram([("a", -1.0), ("b", -2.5)], 0, False)


def save(folder: Path, model: models.Model, *added: str) -> Path:
    """Saves a tokenizer whose added tokens get the ids that follow."""
    folder.mkdir()
    tokenizer = Tokenizer(model)
    tokenizer.add_tokens([AddedToken(token) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("model", [BPE, UNIGRAM], ids=["bpe", "unigram"])
def test_the_same_tokens_with_the_same_ids_are_one_vocabulary(
    model: models.Model, tmp_path: Path
) -> None:
    check_same_vocabulary(save(tmp_path / "one", model), save(tmp_path / "two", model))


def test_an_added_token_that_stands_in_one_list_only_is_the_same_token(tmp_path: Path) -> None:
    one = save(tmp_path / "one", models.BPE({**WORDS, "<pad>": 2}, []))
    check_same_vocabulary(one, save(tmp_path / "two", BPE, "<pad>"))


def test_an_added_token_of_one_model_alone_is_named(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", BPE), save(tmp_path / "two", BPE, "<pad>")
    with pytest.raises(UserError, match="for example '<pad>': no id and id 2"):
        check_same_vocabulary(one, two)


def test_equal_counts_with_other_ids_are_told_apart(tmp_path: Path) -> None:
    swapped = models.Unigram([("b", -2.5), ("a", -1.0)], 0, False)
    one, two = save(tmp_path / "one", UNIGRAM), save(tmp_path / "two", swapped)
    with pytest.raises(UserError, match=r"\(2 tokens\).*for example 'a': id 0 and id 1"):
        check_same_vocabulary(one, two)
