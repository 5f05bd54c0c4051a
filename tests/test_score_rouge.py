"""ROUGE-L: rouge-score is the oracle, and equality is exact."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from kdbench.base.errors import UserError
from kdbench.score import rouge_l

ORACLE = RougeScorer(["rougeL"], use_stemmer=True)

# Few words that stem alike make long common subsequences; the rest is any text there is.
WORDS = (
    "the cat cats running runs ran relational Relate at 7 3.14 fly-ing naïve İstanbul \u212aelvin"
)
SENTENCES = st.lists(st.sampled_from(WORDS.split()), max_size=30).map(" ".join)
TEXTS = SENTENCES | st.text(max_size=40)


def oracle(prediction: str, texts: list[str]) -> float:
    return float(100 * ORACLE.score_multi(texts, prediction)["rougeL"].fmeasure)


@pytest.mark.filterwarnings("ignore:.*non-Latin")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=4)), max_size=4))
def test_equals_rouge_score_bit_for_bit(pairs: list[tuple[str, list[str]]]) -> None:
    predictions = [prediction for prediction, _ in pairs]
    references = [texts for _, texts in pairs]
    assert rouge_l(predictions, references) == [oracle(*pair) for pair in pairs]


def test_equals_rouge_score_on_texts_longer_than_a_machine_word() -> None:
    prediction = " ".join(f"word{i % 37}" for i in range(300))
    reference = " ".join(f"word{i % 41}" for i in range(400))
    assert rouge_l([prediction], [[reference]]) == [oracle(prediction, [reference])]


def test_other_script_warns_once_with_the_number_of_references() -> None:
    with pytest.warns(UserWarning, match="^2 references") as caught:
        scores = rouge_l(["привет мир", "ok"], [["привет мир", "ok"], ["你好"]])
    assert (scores, len(caught)) == ([0.0, 0.0], 1)


def test_punctuation_alone_is_no_other_script() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rouge_l(["?"], [["...", ""]]) == [0.0]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [["a"], ["b"]], "1 predictions but 2 lists"),
        (["a", "b"], [["a"], []], r"references\[1\] is empty"),
        (["a"], ["a"], r"references\[0\] is one string"),
    ],
)
def test_refuses_what_does_not_pair(
    predictions: list[str], references: list[list[str]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rouge_l(predictions, references)
