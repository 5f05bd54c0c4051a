"""The teacher's cache: its bytes against those of fp16 logits, exactness, and the time to fill it.

* bytes_per_token: hidden states on the disk, per response token; fp16-logits: 2 V.
* difference: the largest one of log-probabilities, between the cache's head and the teacher's own
  logits, on the batches that filled it (`same-batch`) and on rows one by one (`row-by-row`), where
  the body itself rounds otherwise.
* seconds: `fill` (pass, writing, verification) against the bare forward passes of the same batches,
  the floor.
"""

import tempfile
from pathlib import Path

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
    for shape in (TINY,) if report.options.smoke else (DOLLY, EMBEDDED):
        case = f"V={shape.vocabulary}"
        if report.wants(case):
            with tempfile.TemporaryDirectory() as folder:
                _shape(report, shape, case, Path(folder))


def _shape(report: Report, shape: BenchShape, case: str, folder: Path) -> None:
    teacher = Bench(shape).teacher
    data = random_rows(shape, 2 if report.options.smoke else BATCHES)
    filled: list[Path] = []

    def fill_it() -> None:
        filled.append(folder / str(len(filled)))
        fill(teacher, shape.vocabulary, {"train": data}, filled[-1])

    calls = {OURS: fill_it, "floor": lambda: _bare(teacher, data)}
    report.compare(case, in_turn(calls, report.options.repeats), "fill_seconds")
    size = (filled[-1] / "train.safetensors").stat().st_size / int(data.response_lengths.sum())
    sizes = {OURS: [size], "fp16-logits": [2.0 * shape.vocabulary]}
    report.compare(case, sizes, "bytes_per_token", "B")
    few = data.first(min(len(data), 2 * ROWS))
    cache_of_few = folder / "few"
    fill(teacher, shape.vocabulary, {"train": few}, cache_of_few)
    for kind, rows in (("same-batch", ROWS), ("row-by-row", 1)):
        found = _difference(teacher, cache_of_few, few, shape.vocabulary, rows)
        report.value(f"{case} {kind}", OURS, "difference", found, "nats")


@torch.no_grad()
def _bare(teacher: torch.nn.Module, data: Encoded) -> None:
    """The body's forward pass over all batches, and nothing kept."""
    for batch in _batches(data, ROWS):
        tokens = collate(data, batch).tokens.to(teacher.device)  # type: ignore[arg-type]
        teacher.base_model(input_ids=tokens, use_cache=False)  # type: ignore[operator]


@torch.no_grad()
def _difference(
    teacher: torch.nn.Module, folder: Path, data: Encoded, vocabulary: int, rows: int
) -> float:
    """The largest difference of log-probabilities between the cache and the teacher's logits."""
    device: torch.device = teacher.device  # type: ignore[assignment]
    cache, largest = open_cache(folder, "train", device), 0.0
    for part in _batches(data, rows):
        batch = collate(data, part)
        logits = teacher(input_ids=batch.tokens.to(device), use_cache=False).logits
        live = logits.flatten(0, 1)[batch.positions.to(device), :vocabulary].float()
        side = cache.batch(data, part)
        gap = side.head.logits(side.hidden).log_softmax(-1).sub_(live.log_softmax(-1))
        largest = max(largest, float(gap.abs_().max()))
    return largest


def _batches(data: Encoded, rows: int) -> tuple[Tensor, ...]:
    """As `fill` makes them where `rows` are its own."""
    order = torch.argsort(data.lengths, stable=True)
    return torch.split(order, rows)
