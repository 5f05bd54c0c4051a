"""Exact match, length, distinct-2, and the scores file of a trial."""

import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kdbench.base.errors import UserError
from kdbench.base.store import write_jsonl
from kdbench.runs.folder import Run, TrialFiles
from kdbench.score import distinct_2, exact_match, length, rouge_l, score_trial

REFERENCES = {"dolly": [["a red house"], ["blue", "green"]], "vicuna": [["yes it is"]]}
SAMPLED = ("exact_match", "length")
TEXTS = {"dolly": ["a red car", " green\n"], "vicuna": ["yes yes yes"]}


def answers(texts: list[str], seed: int) -> list[dict[str, Any]]:
    return [
        {"sample": i, "decoding_seed": seed, "text": text, "n_tokens": 3, "finish": "stop"}
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def trial(tmp_path: Path) -> TrialFiles:
    trial = Run(tmp_path).trial("sft", 0)
    for name, texts in TEXTS.items():
        # Reversed: the order of the lines is no part of the contract.
        rows = answers(texts, 10) + answers(texts[::-1], 20)
        write_jsonl(trial.generations(name), rows[::-1])
        write_jsonl(trial.generations(name, greedy=True), answers(texts, -1))
    return trial


def rows_of(trial: TrialFiles) -> dict[tuple[str, int, int, str], float]:
    table = pq.read_table(trial.scores_path).to_pylist()
    return {(r["set"], r["sample"], r["decoding_seed"], r["metric"]): r["value"] for r in table}


def test_exact_match_ignores_outer_space_only() -> None:
    predictions = [" yes\n", "Yes", "yes indeed"]
    assert exact_match(predictions, [["no", "yes "]] * 3) == [100.0, 0.0, 0.0]


def test_length_counts_words() -> None:
    assert length(["", "one", " two\n words "]) == [0.0, 1.0, 2.0]


def test_distinct_2_is_over_the_whole_set_and_within_answers() -> None:
    # Bigrams: ab, ba, ab | ab; "b c" would join two answers.
    assert distinct_2(["a b a b", "a b", "c"]) == pytest.approx(100 * 2 / 4)
    assert distinct_2(["one", ""]) == 0.0


def test_a_trial_is_scored_without_a_warning_for_each_of_its_files(trial: TrialFiles) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_trial(trial, {**REFERENCES, "vicuna": [["привет"]]})


def test_every_sample_seed_and_metric_has_its_row_and_value(trial: TrialFiles) -> None:
    score_trial(trial, REFERENCES)
    rows = rows_of(trial)
    samples, metrics = [("dolly", 0), ("dolly", 1), ("vicuna", 0)], ("rouge_l", *SAMPLED)
    sampled = {(*which, seed, what) for which, seed, what in product(samples, (10, 20), metrics)}
    greedy = {(*which, -1, "rouge_l_greedy") for which in samples}
    whole = {(name, -1, seed, "distinct_2") for name in TEXTS for seed in (10, 20)}
    assert set(rows) == sampled | greedy | whole
    expected = rouge_l(["green", "a red car"], REFERENCES["dolly"])
    assert [rows["dolly", i, 20, "rouge_l"] for i in (0, 1)] == expected
    assert rows["dolly", 1, 10, "exact_match"] == 100.0


def test_scoring_again_gives_the_same_bytes(trial: TrialFiles) -> None:
    score_trial(trial, REFERENCES)
    first = trial.scores_path.read_bytes()
    rows = answers(TEXTS["dolly"], 10) + answers(TEXTS["dolly"][::-1], 20)
    write_jsonl(trial.generations("dolly"), rows)
    score_trial(trial, REFERENCES)
    assert trial.scores_path.read_bytes() == first


def test_text_that_reads_as_a_number_is_scored_as_text(trial: TrialFiles) -> None:
    write_jsonl(trial.generations("vicuna"), answers(["inf"], 10) + answers(["nan"], 20))
    score_trial(trial, {**REFERENCES, "vicuna": [["inf"]]})
    assert rows_of(trial)["vicuna", 0, 10, "exact_match"] == 100.0


def test_without_greedy_files_there_are_no_greedy_rows(trial: TrialFiles) -> None:
    for name in TEXTS:
        trial.generations(name, greedy=True).unlink()
    score_trial(trial, REFERENCES)
    assert {metric for *_, metric in rows_of(trial)} == {"rouge_l", "distinct_2", *SAMPLED}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "expected answers"),
        (answers(["x"], 10), "0 answers to sample 1"),
        (answers(["x", "y"], 10) + answers(["z"], 10), "2 answers to sample 0"),
        (answers(["x", "y", "z"], 10), "1 answers to sample 2 .* a set of 2"),
        (answers(["x", "y"], 10), "different decoding seeds"),
    ],
)
def test_anything_but_one_answer_each_is_refused(
    trial: TrialFiles, rows: list[dict[str, Any]], message: str
) -> None:
    write_jsonl(trial.generations("dolly"), rows)
    with pytest.raises(UserError, match=message):
        score_trial(trial, REFERENCES)
    assert not trial.scores_path.exists()


def test_greedy_answers_for_one_set_only_are_refused(trial: TrialFiles) -> None:
    trial.generations("vicuna", greedy=True).unlink()
    with pytest.raises(UserError, match=r"vicuna\.greedy"):
        score_trial(trial, REFERENCES)


def test_scoring_does_not_import_pandas_or_torch() -> None:
    code = "import sys, kdbench.score; print({'pandas', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
