"""What identifies a run and a trial, and how two identities differ."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel

from kdbench.config.schema import Fields, Suite

SPEC_VERSION = 1
"""Raised when the meaning of a field, or of the training loop behind it, changes."""


class Shared(Fields):
    """What all trials of a run have in common; a run is extended only while this stays the same."""

    version: int = SPEC_VERSION
    suite: Suite
    data_digest: str
    """Of the records' bytes, so that an edited file cannot pass for the old one."""
    backend: Literal["vllm", "transformers"]
    backend_version: str
    dtype: Literal["float32", "bfloat16"]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal content."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that identify the parts' content and the spec's version."""
    text = "\x1e".join([str(SPEC_VERSION), *(canonical(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """`field: old -> new` for every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if old == new else [f"{where}: {canonical(old)} -> {canonical(new)}"]
