"""What lies damaged in the cache or in a run's folder is named, removed, and so made again."""

from collections.abc import Iterator
from pathlib import Path

from kdbench.base import seal
from kdbench.pipeline.artifacts import Artifacts, Role
from kdbench.runs.folder import TrialFiles

LARGE = 1 << 30
"""Bytes of a file that is checked as it is read, and not before."""


def mend_artifacts(artifacts: Artifacts, models: list[tuple[Role, int]]) -> Iterator[str]:
    """Removes what is damaged of a suite's shared files; says what it was."""
    for folder in (artifacts.tokenizer, artifacts.encoded):
        yield from _mended(folder)
    for role, init_seed in models:
        voucher = artifacts.weights_digest(role, init_seed)
        if voucher.exists():
            yield from _mended(artifacts.model(role, init_seed) / "model", voucher)
    if artifacts.weights_digest("teacher").exists():
        yield from _mended(artifacts.teacher_cache)


def mend_trial(files: TrialFiles) -> Iterator[str]:
    """Removes what is damaged of a trial that has not been scored; says what it was."""
    if files.trained.exists():
        yield from _mended(files.model, files.trained)
    for path in sorted((files.path / "generations").glob("*.jsonl")):
        if seal.is_sealed(path):
            try:
                seal.check_sealed(path)
            except seal.DamagedError as error:
                seal.remove(path, seal.sidecar(path))
                yield _said(error)


def mend_scores(files: TrialFiles) -> Iterator[str]:
    """Removes scores that are not those that DONE.json vouches for; says so."""
    done = files.done
    assert done is not None
    try:
        seal.check_file(files.scores_path, done.digests.get(files.scores_path.name, ""))
    except seal.DamagedError as error:
        seal.remove(files.path / "DONE.json", files.scores_path)
        yield _said(error)


def _mended(folder: Path, *vouchers: Path) -> Iterator[str]:
    if not folder.exists():
        return
    small = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size < LARGE
    }
    try:
        seal.check_folder(folder, only=small)
    except seal.DamagedError as error:
        seal.remove(*vouchers, folder)
        yield _said(error)


def _said(error: seal.DamagedError) -> str:
    return f"{error}; it is made again"
