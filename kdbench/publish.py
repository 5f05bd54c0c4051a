"""Copies the part of a run that is small enough to be committed and free enough to be shown."""

import shutil
from pathlib import Path

import yaml

from kdbench import store
from kdbench.errors import UserError
from kdbench.store import Run

TABLES = ("leaderboard.csv", "leaderboard.md", "stability.csv", "spec.yaml", "provenance.json")


def publish(run: Run, boards: Path) -> Path:
    """Replaces `boards/<suite>/` by the tables, plots, spec and provenance of a run.

    No prompt, reference or answer is copied, so nothing a licence keeps back is published.

    Raises:
        UserError: the run has no leaderboard yet.
    """
    missing = [name for name in TABLES if not (run.path / name).exists()]
    if missing:
        raise UserError(f"{run.path}: {', '.join(missing)} missing; finish the run first")
    spec = yaml.safe_load((run.path / "spec.yaml").read_text(encoding="utf-8"))
    target = boards / str(spec["shared"]["suite"]["name"])
    with store.new_folder(target) as folder:
        for name in TABLES:
            shutil.copyfile(run.path / name, folder / name)
        if (run.path / "plots").is_dir():
            shutil.copytree(run.path / "plots", folder / "plots")
    return target
