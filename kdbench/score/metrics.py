"""The other metrics, and the scores file of a trial."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base.errors import UserError
from kdbench.base.store import read_jsonl, write_bytes
from kdbench.runs.folder import TrialFiles
from kdbench.runs.scores import SCORE_COLUMNS, WHOLE_SET
from kdbench.score.rouge import best_scores, check_pairs

GREEDY = -1
"""The `decoding_seed` of greedy decoding."""

Row = tuple[str, int, int, str, float]
"""Set, sample, decoding seed, metric, value."""


def score_trial(trial: TrialFiles, sets: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Scores a trial's generations and writes its `scores.parquet`, whole or not at all.

    The same generations, and references of each sample of each set, give the same bytes. Greedy
    answers are scored where their files exist, which must be for all sets or for none. There has to
    be exactly one answer per (set, sample, decoding seed), and the same seeds for all sets.
    """
    rows: list[Row] = []
    seeds_of: dict[str, list[int]] = {}
    greedy = any(trial.generations(name, greedy=True).exists() for name in sets)
    for name, references in sets.items():
        answers = _read_answers(trial.generations(name), len(references))
        seeds_of[name] = sorted(answers)
        columns: dict[tuple[int, str], list[float]] = {}
        for seed, texts in answers.items():
            columns[seed, "rouge_l"] = best_scores(texts, references)
            columns[seed, "exact_match"] = exact_match(texts, references)
            columns[seed, "length"] = length(texts)
            rows.append((name, WHOLE_SET, seed, "distinct_2", distinct_2(texts)))
        if greedy:
            path = trial.generations(name, greedy=True)
            texts = _read_answers(path, len(references), only_seed=GREEDY)[GREEDY]
            columns[GREEDY, "rouge_l_greedy"] = best_scores(texts, references)
        for (seed, metric), values in columns.items():
            rows += [(name, sample, seed, metric, value) for sample, value in enumerate(values)]
    if len(set(map(tuple, seeds_of.values()))) > 1:
        raise UserError(f"{trial.path}: the sets have different decoding seeds: {seeds_of}")
    write_scores(trial.scores_path, rows)


def write_scores(path: Path, rows: Sequence[Row]) -> None:
    """Writes score rows as Parquet, sorted, so that the same rows give the same bytes."""
    columns = [list(column) for column in zip(*sorted(rows), strict=True)]
    buffer = pa.BufferOutputStream()
    table = pa.table(columns, schema=pa.schema(SCORE_COLUMNS))
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """100 where the stripped text equals one of its stripped references, case and all, else 0."""
    check_pairs(predictions, references)
    return [
        100.0 * (prediction.strip() in map(str.strip, texts))
        for prediction, texts in zip(predictions, references, strict=True)
    ]


def length(predictions: Sequence[str]) -> list[float]:
    """Words, divided by white space, of each prediction."""
    return [float(len(prediction.split())) for prediction in predictions]


def distinct_2(predictions: Sequence[str]) -> float:
    """Different bigrams of words over all bigrams of the whole set, times 100.

    Bigrams do not cross answers; words are divided by white space. Without any bigram it is 0.
    It falls as a set grows, so only sets of one size compare (Li et al. 2016, arXiv:1510.03055).
    """
    bigrams: Counter[tuple[str, str]] = Counter()
    for prediction in predictions:
        bigrams.update(pairwise(prediction.split()))
    return 100 * len(bigrams) / max(bigrams.total(), 1)


def _read_answers(path: Path, samples: int, only_seed: int | None = None) -> dict[int, list[str]]:
    """Texts in the order of the samples, for each decoding seed."""
    # str() gives back a text "nan" or "inf", which the store reads as a number.
    rows = [(row["decoding_seed"], row["sample"], str(row["text"])) for row in read_jsonl(path)]
    seeds = sorted({seed for seed, _, _ in rows})
    if not rows or (only_seed is not None and seeds != [only_seed]):
        expected = "answers" if only_seed is None else f"answers of decoding seed {only_seed} only"
        raise UserError(f"{path}: expected {expected}, found decoding seeds {seeds}")
    found = Counter((seed, sample) for seed, sample, _ in rows)
    wanted = [(seed, sample) for seed in seeds for sample in range(samples)]
    for seed, sample in [*wanted, *found]:
        if found[seed, sample] != (0 <= sample < samples):
            raise UserError(
                f"{path}: {found[seed, sample]} answers to sample {sample} with decoding seed "
                f"{seed} of a set of {samples} samples, where exactly one to each is needed; "
                "delete the file and run again"
            )
    text_of = {(seed, sample): text for seed, sample, text in rows}
    return {seed: [text_of[seed, sample] for sample in range(samples)] for seed in seeds}
