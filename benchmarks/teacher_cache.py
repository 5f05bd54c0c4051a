"""The teacher's cache: its bytes, exactness, and the time to fill it; see docs/speed.md."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import OURS, Report, in_turn
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, Bench, BenchShape, random_rows
from kdbench.data.batches import collate
from kdbench.data.encode import Encoded
from kdbench.head.teacher import ROWS, fill, open_cache

REPEATS = 3
PACKAGES = ("transformers",)
BATCHES = 48
"""Of the shape's rows: 66,768 tokens of the larger one, so that verifying four rows is little."""


def measure(report: Report) -> None:
    """Both shapes; filled and read in a folder of its own."""
    for shape in (TINY,) if report.smoke else (DOLLY, EMBEDDED):
        if report.wants(case := f"V={shape.vocabulary}"):
            with tempfile.TemporaryDirectory() as folder:
                _shape(report, shape, case, Path(folder))


def _shape(report: Report, shape: BenchShape, case: str, folder: Path) -> None:
    teacher = Bench(shape).teacher
    data = random_rows(shape, 2 if report.smoke else BATCHES)
    few, filled = data.first(min(len(data), 2 * ROWS)), []

    def fill_it() -> None:
        filled.append(folder / str(len(filled)))
        fill(teacher, shape.vocabulary, {"train": data}, filled[-1])

    calls = {OURS: fill_it, "floor": lambda: _bare(teacher, data)}
    report.compare(case, in_turn(calls, report.repeats), "fill_seconds")
    size = (filled[-1] / "train.safetensors").stat().st_size / int(data.response_lengths.sum())
    sizes = {OURS: [size], "fp16-logits": [2.0 * shape.vocabulary]}
    report.compare(case, sizes, "bytes_per_token", "B")
    fill(teacher, shape.vocabulary, {"train": few}, folder / "few")
    for kind, rows in (("same-batch", ROWS), ("row-by-row", 1)):
        found = _difference(teacher, folder / "few", few, shape.vocabulary, rows)
        report.compare(f"{case} {kind}", {OURS: [found]}, "difference", "nats")


@torch.no_grad()
def _bare(teacher: Any, data: Encoded) -> None:
    """The body's forward pass over all batches, and nothing kept."""
    for batch in _batches(data, ROWS):
        tokens = collate(data, batch).tokens.to(teacher.device)
        teacher.base_model(input_ids=tokens, use_cache=False)


@torch.no_grad()
def _difference(teacher: Any, folder: Path, data: Encoded, vocabulary: int, rows: int) -> float:
    """The largest difference of log-probabilities between the cache and the teacher's logits."""
    cache, largest = open_cache(folder, "train", teacher.device), 0.0
    for part in _batches(data, rows):
        batch = collate(data, part).to(teacher.device)
        logits = teacher(input_ids=batch.tokens, use_cache=False).logits
        live = logits.flatten(0, 1)[batch.positions, :vocabulary].float()
        side = cache.batch(data, part)
        gap = side.head.logits(side.hidden).log_softmax(-1).sub_(live.log_softmax(-1))
        largest = max(largest, float(gap.abs_().max()))
    return largest


def _batches(data: Encoded, rows: int) -> tuple[Tensor, ...]:
    """As `fill` makes them where `rows` are its own."""
    return torch.split(torch.argsort(data.lengths, stable=True), rows)
