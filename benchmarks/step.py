"""One training step, the teacher cached or live, beside its floor and other people's loops.

docs/speed.md says what each one is. Peers run in processes of their own, in turn with kdbench,
which would find its caches cold and its memory in pieces after a loop that takes gigabytes.
"""

import itertools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import torch

from benchmarks.measure import OURS, Report, rounds, seconds, version
from benchmarks.peers import PUBLISHED, padded_inputs, padded_step, trl_gkd_step
from benchmarks.shapes import DOLLY, EMBEDDED, TINY, Bench, BenchShape, products
from kdbench.config.schema import Loss
from kdbench.data.batches import collate, micro_batches
from kdbench.head.chunked import PerToken, per_token_loss
from kdbench.models.model import head_of, hidden_states, mixed_precision, pick_device
from kdbench.train.batch import GlobalBatch, Portion, TeacherSide
from kdbench.variants.variant import parse

REPEATS = 5
PACKAGES = ("trl", "transformers")
PADDED_LENGTH = 512
ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""What kdbench sets for its workers, and nobody else does."""


def measure(report: Report) -> None:
    """Every published loss on both shapes, and what the machine does at best."""
    shapes = [(DOLLY, PADDED_LENGTH), (EMBEDDED, 144)] if not report.smoke else [(TINY, 32)]
    with _process(keeps_pages=False) as theirs, _process(keeps_pages=True) as as_ours:
        for (shape, longest), name in itertools.product(shapes, PUBLISHED):
            cases = {kind: f"{name} {kind} V={shape.vocabulary}" for kind in ("cached", "live")}
            if any(map(report.wants, cases.values())):
                peer = (shape, name, longest, report.threads)
                pools = {"padded-loop": theirs, "padded-loop-kept": as_ours}
                if name == "jsd" and version("trl"):
                    pools["trl-gkd"] = theirs
                peers = {who: partial(_elsewhere, pool, who, *peer) for who, pool in pools.items()}
                # Peers are timed once for both cases.
                samples = rounds(_own(Bench(shape), name) | peers, report.repeats)
                others = {who: samples[who] for who in ("floor", *peers)}
                for kind, case in cases.items():
                    report.compare(case, {OURS: samples[kind], **others})
    if report.wants("machine"):
        _machine(report)


def _own(bench: Bench, name: str) -> dict[str, Callable[[], float]]:
    per_token = per_token_loss(parse(name), Loss())
    if bench.student.device.type == "cuda":  # as in a run
        per_token = torch.compile(per_token)
    return {
        "cached": partial(seconds, step(bench, per_token, bench.cache)),
        "live": partial(seconds, step(bench, per_token, bench.live)),
        "floor": partial(seconds, floor(bench)),
    }


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


_bench = cache(Bench)
"""The models of a peer's process, made once."""


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
            with mixed_precision(device):
                hidden = hidden_states(student, moved.tokens, moved.positions)
                loss = portion.loss(hidden, head, moved, beside) / batch.normaliser
            loss.backward()  # type: ignore[no-untyped-call]

    return call


def floor(bench: Bench) -> Callable[[], None]:
    """See the module's text."""
    student, data, device = bench.student, bench.data, bench.student.device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    batch = collate(data, bench.rows).to(device)
    head, beside = head_of(student, bench.shape.vocabulary), bench.cache.batch(data, batch.rows)
    multiply = products(head, len(batch.positions), beside, dtype)

    def call() -> None:
        student.zero_grad(set_to_none=True)
        with mixed_precision(device):
            hidden = hidden_states(student, batch.tokens, batch.positions)
        d_hidden = multiply(hidden.detach().to(dtype))
        hidden.backward(d_hidden.to(hidden.dtype))  # type: ignore[no-untyped-call]

    return call


def _machine(report: Report) -> None:
    """A large matrix product and a large copy: what formulas of operations and bytes divide by."""
    device, side = pick_device(), 256 if report.smoke else 2048
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
        found = [amount / seconds(call) / 1e9 for _ in range(max(3, report.repeats))]
        report.compare("machine", {"floor": found}, what, unit)
