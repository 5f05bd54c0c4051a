"""What identifies a run and a trial, and how two identities differ.

Everything that can move a number is part of an identity. What only changes where or how fast it
runs is not.
"""

import hashlib
import json
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdbench.config.schema import Suite

SPEC_VERSION = 2
"""Raised when the meaning of a field, or of the training loop behind it, changes."""

ORDER = ("name", "data.train", "data.max_prompt", "data.max_length", "tokenizer")
"""Fields of a suite that say, with the data's digest, which rows a batch is drawn from."""
STEPS = ("recipe.batch", "recipe.steps")
"""Fields of a suite that say how many rows a batch has, and how many batches there are."""


class _Stored(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Shared(_Stored):
    """What all trials of a run have in common."""

    version: int = SPEC_VERSION
    suite: Suite
    data_digest: str
    """Of the records' bytes, so that an edited file cannot pass for the old one."""
    backend: Literal["vllm", "transformers"]
    backend_version: str
    dtype: Literal["float32", "bfloat16"]


class Budget(_Stored):
    """What is tried for every objective, and what chooses."""

    trials: int
    """Candidates of every objective."""
    seeds: int
    """Trainings of every candidate."""
    split: str
    metric: str


class RunSpec(_Stored):
    """spec.yaml: what identifies a run, and what it has been extended to."""

    shared: Shared
    variants: tuple[str, ...]
    """By their full names."""
    seeds: int
    init_seeds: int
    tuning: Budget | None
    """None where the variants are what was written."""

    @property
    def identity(self) -> dict[str, Any]:
        """What has to stay the same when a run is extended or takes trials from another one."""
        tree = self.model_dump(mode="json", include={"shared", "tuning"})
        return {**tree["shared"], "tuning": tree["tuning"]}

    def extended_by(self, later: "RunSpec") -> "RunSpec":
        """The later command's spec, with the variants and seeds that were asked for before."""
        return later.model_copy(
            update={
                "variants": tuple(dict.fromkeys([*self.variants, *later.variants])),
                "seeds": max(self.seeds, later.seeds),
                "init_seeds": max(self.init_seeds, later.init_seeds),
            }
        )


class Harness(_Stored):
    """The kdbench that ran a trial."""

    version: str
    commit: str | None
    """None where it does not run from a checkout."""
    dirty: bool | None
    """Whether committed files had been changed."""
    rooms: str
    """Digest of the rooms that move numbers, see `kdbench.base.code`."""


class TrialSpec(_Stored):
    """spec.json: what identifies a trial within its run."""

    variant: str
    objective: str
    params: dict[str, Any]
    """Resolved; an inner divergence by its full name."""
    lr: float | None
    """None for the suite's."""
    source: dict[str, Any] | None
    """Name and parameters of where its sequences come from; None for a reference."""
    slug: str
    """The folder of its row."""
    seed: int
    init_seed: int
    """Of the initial student that it starts from; where that is scored itself, its own."""
    reference: bool
    code: str | None
    """Digest of the objective's code; None for a reference."""
    harness: Harness
    """Provenance: not part of what the trial is, but one run has one digest of the rooms."""

    @property
    def identity(self) -> dict[str, Any]:
        """What has to be the same for the trial to be taken as done."""
        return self.model_dump(mode="json", exclude={"harness"})

    @property
    def parameters(self) -> dict[str, Any]:
        """`params`, and `lr` where it is not the suite's."""
        return self.params if self.lr is None else {**self.params, "lr": self.lr}

    @property
    def definition(self) -> dict[str, Any]:
        """What the variant is, whatever its seeds and its suite."""
        return {"params": self.parameters, "source": self.source, "code": self.code}


class Done(_Stored):
    """DONE.json: how a trial ended, and what vouches for its files."""

    status: Literal["done", "diverged"]
    diverged_at: int | None
    reason: str | None
    steps: Annotated[int, Field(ge=0)]
    train_seconds: Annotated[float, Field(ge=0)]
    tokens: Annotated[int, Field(ge=0)]
    generated_tokens: Annotated[int, Field(ge=0)]
    teacher_passes: Annotated[int, Field(ge=0)]
    weights: dict[str, str]
    """Digests of the shared models that it depends on."""
    dropout: Annotated[float, Field(ge=0, le=1)]
    """The largest probability of it in the training."""
    digests: dict[str, str]
    """Of scores.parquet and train.jsonl, see `kdbench.base.seal`."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal content."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that identify the parts' content and the spec's version."""
    text = "\x1e".join([str(SPEC_VERSION), *(canonical(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """`field: old -> new` for every leaf in which two models or JSON values differ."""
    old, new = _plain(old), _plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if old == new else [f"{where}: {canonical(old)} -> {canonical(new)}"]


def other_batches(old: Shared, new: Shared) -> str:
    """The first field for which one training seed gives other batches; "" where they are equal."""
    if old.data_digest != new.data_digest:
        return "data_digest"
    for field in (*ORDER, *STEPS):
        value = attrgetter(f"suite.{field}")
        if value(old) != value(new):
            return field
    return ""


def problem(error: ValidationError) -> str:
    """The first field of a stored spec that is wrong, and what is wrong with it."""
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc'])) or 'all of it'}: {found['msg']}"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
