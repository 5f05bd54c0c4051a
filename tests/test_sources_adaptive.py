"""DistiLLM's scheduler: when it takes gold rows, samples, and draws from its buffer."""

import itertools
from types import SimpleNamespace
from typing import Any

from kdbench.config.schema import Loss
from kdbench.data.encode import Encoded
from kdbench.train.sequences import Adaptive
from kdbench.variants.variant import parse
from tests.training_tools import CPU


class _Chance:
    """The random stream of an adaptive source, by hand."""

    def __init__(self) -> None:
        self.chance = 0.0

    def random(self) -> float:
        return self.chance

    def choice(self, many: int, size: int, replace: bool) -> list[int]:
        return list(range(many - size, many))


def adaptive(**params: float) -> tuple[Adaptive, _Chance, list[str]]:
    """An adaptive source of 1000 steps of 4 sequences of one token each."""
    given = ",".join(f"{key}={value}" for key, value in params.items())
    fake, calls = _Chance(), list[str]()
    job: Any = SimpleNamespace(
        variant=parse(f"jsd@adaptive[{given}]"),
        recipe=SimpleNamespace(steps=1000, batch=4),
        loss=Loss(),
        teacher_cache=None,
        open_cache=lambda *_: None,
        open_live_teacher=lambda *_: None,
    )
    student: Any = SimpleNamespace(model=SimpleNamespace(device=CPU), per_token=None)
    made = Adaptive(job, student)
    made.random = lambda what, step: fake  # type: ignore[method-assign,assign,return-value]
    numbers = itertools.count()

    def fresh(step: int) -> Encoded:
        calls.append("fresh")
        return Encoded.of([([1, 2], [next(numbers)]) for _ in range(4)])

    def samples(data: Encoded, *, generated: int) -> Any:
        calls.append("samples" if generated else "replay")
        return data

    made.fresh = fresh  # type: ignore[method-assign]
    made.samples = samples  # type: ignore[method-assign]
    made.gold = lambda step: calls.append("gold")  # type: ignore[method-assign,assign,return-value]
    return made, fake, calls


def test_adaptive_takes_gold_at_or_above_the_threshold() -> None:
    made, fake, calls = adaptive(threshold=0.5)
    fake.chance = 0.5
    made.batch(0)
    assert calls == ["gold"]


def test_adaptive_fills_its_buffer_first_and_then_draws_from_it() -> None:
    made, fake, calls = adaptive(threshold=0.5, capacity=8)
    fake.chance = 0.3
    for _ in range(3):
        made.batch(900)  # 0.5 (1 - 0.9) = 0.05 lies below the chance
    assert calls == ["fresh", "samples", "fresh", "samples", "replay"]


def test_adaptive_samples_below_the_decayed_threshold_even_with_a_full_buffer() -> None:
    made, fake, calls = adaptive(threshold=0.5, capacity=4)
    fake.chance = 0.3
    made.batch(900)
    fake.chance = 0.04
    made.batch(900)
    assert calls == ["fresh", "samples"] * 2
    assert [response for _, response in made.buffer] == [[4], [5], [6], [7]]


def test_adaptive_raises_its_threshold_only_when_the_dev_loss_worsens() -> None:
    made, _, _ = adaptive(threshold=0.75)
    made.begin(lambda: {"dev_nll": 1.0})
    seen = []
    for loss in (0.9, 1.05, 1.1, 1.15, 1.25, 5.0):
        made.measured({"dev_nll": loss})
        seen.append(round(made.threshold, 6))
    assert seen == [0.75, 0.75, 0.85, 0.85, 0.95, 1.0]  # and never above 1
