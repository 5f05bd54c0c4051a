"""What the tests of training share: a job on the micro suite, and reading what it left."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.base import store
from kdbench.config.identity import Shared
from kdbench.models.model import load
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.trial import Trial, job_of
from kdbench.runs.folder import Run
from kdbench.train.job import Job
from kdbench.train.loop import train
from kdbench.variants.variant import Variant, parse
from tests.conftest import ANSWERS_VERSION

CPU = torch.device("cpu")


def make_job(artifacts: Artifacts, out: Path, **changes: Any) -> Job:
    """A trial's training on the micro suite, by default of forward-kl with seed 0."""
    out.mkdir(parents=True, exist_ok=True)
    variant = changes.pop("variant", None) or parse("forward-kl")
    return dataclasses.replace(plain_job(artifacts, variant, out), **changes)


def plain_job(artifacts: Artifacts, variant: Variant, out: Path) -> Job:
    """What a run would train of a variant, with seed 0, into a folder."""
    shared = Shared(
        suite=artifacts.suite,
        data_digest=artifacts.data_key,
        backend="transformers",
        backend_version=ANSWERS_VERSION,
        dtype="float32",
    )
    job = job_of(artifacts, Trial(variant), Run(out), shared, artifacts.suite.recipe.batch)
    return dataclasses.replace(job, out=out)


def train_until(job: Job, step: int) -> None:
    """Trains and dies after a step."""

    def kill(row: dict[str, float]) -> None:
        if row["step"] == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, kill)


def weights(job: Job) -> dict[str, torch.Tensor]:
    return dict(load(job.out / "model", CPU).named_parameters())


def log(job: Job) -> list[dict[str, Any]]:
    return store.read_jsonl(job.out / "train.jsonl")


def assert_same_training(first: Job, second: Job, *, exactly: bool) -> None:
    tolerance = {"rtol": 0.0, "atol": 0.0} if exactly else {"rtol": 1e-4, "atol": 1e-5}
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(second)[name], value, **tolerance)
    for mine, other in zip(log(first), log(second), strict=True):
        assert mine["step"] == other["step"]
        assert mine["loss"] == pytest.approx(other["loss"], rel=0 if exactly else 1e-4)
