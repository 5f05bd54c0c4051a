"""One training step: the student forward and backward, the loss, the teacher cached or live.

* kdbench: the functions that the training loop calls, on the same tensors.
* floor: the student's body forward and backward + the matrix products of both heads, nothing else:
  student's and teacher's logits, d(hidden), d(weight), at response positions, in kdbench's chunks
  and into buffers that are there already.
* trl-gkd: the loss of TRL's GKDTrainer on the batch trimmed to its longest row (only `jsd`).
* padded-loop: what published loops do (`benchmarks.peers`).
* padded-loop-kept: the same under the allocator's settings of kdbench's workers, which keep large
  buffers instead of giving their pages back: a user of a published loop has not set them.

Peers run in processes of their own, in turn with kdbench, which would find its caches cold and its
memory in pieces after a loop that takes gigabytes.

The peers have a live teacher in every case: none of them keeps it. Without the optimiser, which is
the same for all.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import torch

from benchmarks.measure import OURS, Report, rounds, seconds, version
from benchmarks.peers import PUBLISHED, padded_inputs, padded_step, trl_gkd_step
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, Bench, BenchShape, half_precision
from kdbench.config.schema import Loss
from kdbench.data.batches import collate, micro_batches
from kdbench.head.chunked import PerToken, chunk_size, per_token_loss
from kdbench.models.model import head_of, hidden_states
from kdbench.train.batch import GlobalBatch, Portion, TeacherSide
from kdbench.variants.variant import parse

REPEATS = 5
PACKAGES = ("trl", "transformers")
PADDED_LENGTH = 512
ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""What kdbench sets for its workers, and nobody else does."""


def measure(report: Report) -> None:
    """Every published loss on both shapes, and what the machine does at best."""
    shapes = [(DOLLY, PADDED_LENGTH), (EMBEDDED, 144)] if not report.options.smoke else [(TINY, 32)]
    with _process(keeps_pages=False) as theirs, _process(keeps_pages=True) as as_ours:
        for shape, longest in shapes:
            for name in PUBLISHED:
                case = f"{name} {{}} V={shape.vocabulary}"
                if report.wants(case.format("cached")) or report.wants(case.format("live")):
                    peer = (shape, name, longest, report.options.threads)
                    peers = {
                        "padded-loop": partial(_elsewhere, theirs, "padded-loop", *peer),
                        "padded-loop-kept": partial(_elsewhere, as_ours, "padded-loop", *peer),
                    }
                    if name == "jsd" and version("trl"):
                        peers["trl-gkd"] = partial(_elsewhere, theirs, "trl-gkd", *peer)
                    _compare(report, Bench(shape), name, case, peers)
    if report.wants("machine"):
        _machine(report)


def _compare(
    report: Report, bench: Bench, name: str, case: str, peers: Mapping[str, Callable[[], float]]
) -> None:
    """Peers are timed once for both cases, cached and live."""
    per_token = per_token_loss(parse(name), Loss())
    if bench.student.device.type == "cuda":  # as in a run
        per_token = torch.compile(per_token)
    timers: dict[str, Callable[[], float]] = {
        "cached": partial(seconds, step(bench, per_token, bench.cache)),
        "live": partial(seconds, step(bench, per_token, bench.live)),
        "floor": partial(seconds, floor(bench)),
        **peers,
    }
    samples = rounds(timers, report.options.repeats)
    found = {who: samples[who] for who in ("floor", *peers)}
    for kind in ("cached", "live"):
        report.compare(case.format(kind), {OURS: samples[kind], **found})


def _elsewhere(pool: ProcessPoolExecutor, *peer: Any) -> float:
    return pool.submit(_peer_seconds, *peer).result()


def _process(keeps_pages: bool) -> ProcessPoolExecutor:
    """A process with the allocator's own settings, or with those of a run's workers."""
    context, before = multiprocessing.get_context("spawn"), dict(os.environ)
    if not keeps_pages:
        for key in ALLOCATOR:
            os.environ.pop(key, None)
    try:
        pool = ProcessPoolExecutor(max_workers=1, mp_context=context)
        pool.submit(int).result()  # it starts with the first task
    finally:
        os.environ.update(before)
    return pool


def _peer_seconds(who: str, shape: BenchShape, name: str, longest: int, threads: int) -> float:
    torch.set_num_threads(threads)
    bench = _bench(shape)
    student, teacher, device = bench.student, bench.teacher, bench.student.device
    length = int(bench.data.lengths.max()) if who == "trl-gkd" else longest
    inputs = {key: value.to(device) for key, value in padded_inputs(bench.data, length).items()}
    if who == "trl-gkd":
        return seconds(trl_gkd_step(student, teacher, inputs))
    return seconds(lambda: padded_step(student, teacher, inputs, PUBLISHED[name]))


@cache
def _bench(shape: BenchShape) -> Bench:
    """The models of a peer's process, made once."""
    return Bench(shape)


def step(bench: Bench, per_token: PerToken, teacher: TeacherSide) -> Callable[[], None]:
    """What `kdbench.train.loop` does between two steps of the optimiser."""
    student, data, rows = bench.student, bench.data, bench.rows
    head, device = head_of(student, bench.shape.vocabulary), student.device
    portion = Portion(data, rows, per_token, teacher)

    def call() -> None:
        student.zero_grad(set_to_none=True)
        batch = GlobalBatch.by_tokens(portion)
        for part in micro_batches(data, rows, len(rows)):
            beside = teacher.batch(data, part.rows)
            moved = part.to(device)
            with half_precision(device):
                hidden = hidden_states(student, moved.tokens, moved.positions)
                loss = portion.loss(hidden, head, moved, beside) / batch.normaliser
            loss.backward()  # type: ignore[no-untyped-call]

    return call


def floor(bench: Bench) -> Callable[[], None]:
    """See the module's text."""
    student, device = bench.student, bench.student.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    batch = collate(bench.data, bench.rows).to(device)
    inputs, positions = batch.tokens, batch.positions
    head = head_of(student, bench.shape.vocabulary)
    weight, size = head.weight.detach().to(dtype), min(chunk_size(head), len(positions))
    other = bench.cache.batch(bench.data, batch.rows)
    other_weight, other_hidden = other.head.weight.detach().to(dtype), other.hidden.to(dtype)
    logits = weight.new_empty(size, len(weight))
    d_hidden, d_weight = weight.new_empty(len(positions), weight.shape[1]), torch.empty_like(weight)

    def call() -> None:
        student.zero_grad(set_to_none=True)
        with half_precision(device):
            hidden = hidden_states(student, inputs, positions)
        detached = hidden.detach().to(dtype)
        d_weight.zero_()
        for start in range(0, len(positions), size):
            part = slice(start, min(start + size, len(positions)))
            buffer = logits[: part.stop - start]
            torch.mm(other_hidden[part], other_weight.T, out=buffer)
            torch.mm(detached[part], weight.T, out=buffer)
            torch.mm(buffer, weight, out=d_hidden[part])
            d_weight.addmm_(buffer.T, detached[part])
        hidden.backward(d_hidden.to(hidden.dtype))  # type: ignore[no-untyped-call]

    return call


def _machine(report: Report) -> None:
    """A large matrix product and a large copy: what formulas of operations and bytes divide by."""
    from kdbench.models.model import pick_device

    device, side = pick_device(), 256 if report.options.smoke else 2048
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    other = torch.empty_like(matrix)
    source = torch.ones(side * side * 16, device=device)
    target = torch.empty_like(source)
    work: dict[str, tuple[Callable[[], object], int, str]] = {
        "matmul": (lambda: torch.mm(matrix, matrix, out=other), 2 * side**3, "GFLOP/s"),
        "copy": (lambda: target.copy_(source), 2 * 4 * source.numel(), "GB/s"),
    }
    for what, (call, amount, unit) in work.items():
        call()
        found = [amount / seconds(call) / 1e9 for _ in range(max(3, report.options.repeats))]
        report.compare("machine", {"floor": found}, what, unit)
