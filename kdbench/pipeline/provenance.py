"""Where numbers come from: versions, commit, hardware and command; no host or user names."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.trial import weights_of
from kdbench.runs.archive import ARCHIVE
from kdbench.runs.folder import Run
from kdbench.runs.provenance import command, commit, hardware, mixed, versions


def begin(plan: Plan, begun: float) -> None:
    """Appends this command to the run's provenance.json, before it does anything."""
    started = datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds")
    entry = describe(plan) | {"started": started, "wall_seconds": None, "trials_done": 0}
    known = plan.run.provenance
    _write(plan, [*known.commands, entry], known.accepted)


def finish(plan: Plan, seconds: float, trials_done: int) -> None:
    """Completes the last entry: how long the command took, and with which shared weights."""
    known = plan.run.provenance
    known.commands[-1] |= {
        "weights": weights(plan),
        "wall_seconds": round(seconds, 1),
        "trials_done": trials_done,
    }
    _write(plan, known.commands, known.accepted)


def accept(plan: Plan, board: Path, trials: list[str]) -> None:
    """Records that trials come from a board, with the commands that made it, before our own."""
    ours, theirs = plan.run.provenance, Run(board).provenance
    taken = {
        "board": board.resolve().name,
        "archive": store.file_digest(board / ARCHIVE),
        "commits": list(dict.fromkeys(entry.get("commit") for entry in theirs.commands)),
        "trials": trials,
    }
    commands = _before(theirs.commands, ours.commands)
    _write(plan, commands, [*_before(theirs.accepted, ours.accepted), taken])


def describe(plan: Plan) -> dict[str, Any]:
    """Everything about this command and machine that a reader may want to know."""
    return {
        "command": command(),
        **commit(),
        "versions": versions(),
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
    return weights_of(plan.artifacts, range(plan.init_seeds))


def _before(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Their entries that we lack, then ours."""
    return [*(entry for entry in theirs if entry not in ours), *ours]


def _write(plan: Plan, commands: list[dict[str, Any]], accepted: list[dict[str, Any]]) -> None:
    known = {"commands": commands, "mixed": mixed(commands), "accepted": accepted}
    store.write_json(plan.run.path / "provenance.json", known)
