"""ROUGE-L per pair against rouge-score, bit for bit the same; docs/speed.md says on what."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from benchmarks.measure import OURS, Report, seconds
from kdbench.score.rouge import rouge_l

REPEATS = 7
PACKAGES = ("rouge-score", "rapidfuzz")
WORDS, SAMPLES, PROCESSES = 80, 500, 2
ENDINGS = ("", "", "", "s", "ing", "ed", "ly", "ation", "ness", "er")

Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]


def measure(report: Report) -> None:
    """One reference a sample, as Dolly, and four."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        for references in (1, 4):
            case = f"{WORDS} words, {references} reference{'s' if references > 1 else ''}"
            if report.wants(case):
                _case(report, case, references, pool)


def _case(report: Report, case: str, references: int, pool: ProcessPoolExecutor) -> None:
    text, samples = _writer(), 20 if report.smoke else SAMPLES
    asked = [[text() for _ in range(references)] for _ in range(samples)]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def theirs(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        pairs = zip(predictions, references, strict=True)
        return [100 * scorer.score_multi(texts, one)["rougeL"].fmeasure for one, texts in pairs]

    def pooled(*sides: Sequence[Any]) -> list[float]:
        size = -(-samples // PROCESSES)
        parts = ([side[at : at + size] for at in range(0, samples, size)] for side in sides)
        return [value for values in pool.map(rouge_l, *parts) for value in values]

    scorers: dict[str, Scorer] = {OURS: rouge_l, "process-pool": pooled, "rouge-score": theirs}
    rounds: dict[str, list[float]] = {who: [] for who in scorers}
    for round_ in range(report.repeats + 1):
        # New answers each time: only references are the same for every student.
        answers = [text() for _ in range(samples)]
        for who, taken in _timed(scorers, answers, asked).items():
            if round_ > 0:
                rounds[who].append(1e6 * taken / (samples * references))
    report.compare(case, rounds, "per_pair", "us")


def _timed(
    scorers: dict[str, Scorer], predictions: list[str], references: list[list[str]]
) -> dict[str, float]:
    """Seconds of each scorer.

    Raises:
        AssertionError: two of them differ in a bit.
    """
    taken, values = {}, []
    for who, scorer in scorers.items():
        taken[who] = seconds(lambda scorer=scorer: values.append(scorer(predictions, references)))
    assert all(found == values[0] for found in values), "the values differ"
    return taken


def _writer() -> Callable[[], str]:
    """Gives one text after another."""
    random = np.random.default_rng(0)
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in "aeiou"]
    stems = ["".join(random.choice(syllables, size)) for size in random.integers(1, 4, 3000)]
    words = np.array([stem + ending for stem in stems for ending in random.choice(ENDINGS, 2)])
    random.shuffle(words)
    weights = 1.0 / np.arange(1, len(words) + 1)

    def text() -> str:
        drawn = random.choice(words, WORDS, p=weights / weights.sum())
        return " ".join(drawn.tolist()).capitalize() + "."

    return text
