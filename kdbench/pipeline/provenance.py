"""Where numbers come from: versions, commit, hardware and command; no host or user names."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.trial import initial_student
from kdbench.runs.archive import ARCHIVE
from kdbench.runs.provenance import _versions, command, commit, hardware, mixed, read


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


def weights(plan: Plan) -> dict[str, str]:
    """Digests of the teacher and of the initial students, as far as they exist."""
    paths = {"teacher": plan.artifacts.weights_digest("teacher")}
    for seed in range(plan.init_seeds):
        paths[initial_student(seed)] = plan.artifacts.weights_digest("student", seed)
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


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
