"""The teacher's cache: equal to the live teacher, keyed by what it is of, and checked when made."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.data.batches import collate
from kdbench.data.encode import Encoded
from kdbench.head import teacher
from kdbench.head.teacher import open_cache
from kdbench.models import model as models
from kdbench.models.model import head_of, hidden_states, load
from kdbench.pipeline.artifacts import Artifacts, content_of
from kdbench.pipeline.build import cache_teacher
from tests.training_tools import CPU


def test_cached_teacher_equals_live_teacher(artifacts: Artifacts) -> None:
    data = Encoded.load(artifacts.encoded / "train.safetensors")
    rows = torch.tensor([5, 0, 17])
    batch = collate(data, rows)
    own = load(artifacts.model("teacher") / "model", CPU)
    with torch.no_grad():
        hidden = hidden_states(own, batch.tokens, batch.positions)
        live = head_of(own, artifacts.vocabulary).logits(hidden)
    cached = open_cache(artifacts.teacher_cache, "train", CPU).batch(data, rows)
    torch.testing.assert_close(cached.head.logits(cached.hidden), live, rtol=1e-5, atol=1e-5)


def test_cache_of_another_teacher_is_not_reused(artifacts: Artifacts) -> None:
    before = artifacts.teacher_cache
    config = artifacts.model("teacher") / "model" / "config.json"
    kept = config.read_text()
    config.write_text(kept.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    content_of.cache_clear()
    try:
        assert config.read_text() != kept
        assert replace(artifacts).teacher_cache != before
    finally:
        config.write_text(kept)
        content_of.cache_clear()


def test_a_cache_in_another_precision_is_not_reused(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artifacts.teacher_cache.name
    monkeypatch.setattr(models, "pick_device", lambda: torch.device("cuda"))
    seen = {before, replace(artifacts).teacher_cache.name}
    # The same weights, as teacher.dtype changes neither its shape nor its fit.
    weights, kept = artifacts.model("teacher"), Artifacts.model
    monkeypatch.setattr(Artifacts, "model", lambda *a: weights if a[1] == "teacher" else kept(*a))
    teacher = artifacts.suite.teacher.model_copy(update={"dtype": "float32"})
    suite = artifacts.suite.model_copy(update={"teacher": teacher})
    seen.add(replace(artifacts, suite=suite).teacher_cache.name)
    assert len(seen) == 3


@pytest.fixture
def uncached(artifacts: Artifacts) -> Iterator[Path]:
    """Where the teacher's cache lies, which is put aside for the test."""
    kept = artifacts.teacher_cache
    moved = kept.rename(kept.with_name("kept"))
    yield kept
    shutil.rmtree(kept, ignore_errors=True)
    moved.rename(kept)


def test_a_teacher_that_is_not_finite_is_noticed_when_its_cache_is_made(
    artifacts: Artifacts, uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **settings: Any) -> Any:
        model = load(*args, **settings)
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(float("nan"))
        return model

    monkeypatch.setattr(models, "load", broken)
    with pytest.raises(UserError, match="not finite: its weights are bad"):
        cache_teacher(artifacts)
    assert not uncached.exists()


def test_a_broken_cache_is_noticed_when_it_is_made(
    artifacts: Artifacts, uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = itertools.count()  # no two of them agree
    monkeypatch.setattr(teacher, "hidden_states", lambda *a: hidden_states(*a) + next(passes))
    with pytest.raises(UserError, match="is off by"):
        cache_teacher(artifacts)
    assert not uncached.exists()
