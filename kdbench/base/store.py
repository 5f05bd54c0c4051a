"""Where a run's files lie, written atomically and read back.

Every file appears whole or not at all (temporary name, fsync, rename). JSON lines that grow while a
process runs may lose their last line to a kill; `repair_jsonl` cuts such a line off.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdbench.base.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file; another text is a UserError."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not a JSON object ({error}); delete it to have it made again"
        ) from error
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file, non-finite numbers restored; [] if it is absent."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from error
        rows.append({key: _restore(key, value) for key, value in row.items()})
    return rows


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object, indented for a person to read."""
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes all rows as JSON lines, whole or not at all."""
    write_text(path, "".join(dump_line(row) for row in rows))


def dump_line(row: Mapping[str, Any]) -> str:
    """One JSON line; non-finite numbers are written as strings, since JSON has none."""
    return json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")) + "\n"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes otherwise."""
    with _folder_beside(path) as folder:
        yield folder
        shutil.rmtree(path, ignore_errors=True)
        folder.rename(path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary place for a file that becomes `path`, synced, when the block ends well.

    It lies in a folder, since whoever writes the file may have temporary names of its own.
    """
    with _folder_beside(path) as folder:
        yield folder / path.name
        with (folder / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (folder / path.name).replace(path)


def sweep(folder: Path) -> None:
    """Removes what killed writers left below a folder that no other process writes to."""
    for path in folder.rglob(".*.tmp"):
        # A process that only sends to a tracker, or exports, may be renaming its own just now.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def repair_jsonl(path: Path, keep_rows: int) -> None:
    """Cuts a JSON-lines file back to its first `keep_rows` complete lines, dropping a torn one."""
    if path.exists():
        lines = path.read_bytes().split(b"\n")[:-1][:keep_rows]
        write_bytes(path, b"".join(line + b"\n" for line in lines))


@contextmanager
def locked(path: Path, busy_message: str | None = None) -> Iterator[None]:
    """Holds an exclusive lock on a file, which stays; the system releases it with the process.

    Raises:
        UserError: another process holds it and `busy_message` is given; without one, it waits.
    """
    # Not at once: who only asks (`is_locked`) holds it for a moment.
    lock = _lock(path, timeout=-1 if busy_message is None else 0.1)
    try:
        held = lock.acquire()
    except Timeout:
        raise UserError(busy_message or f"{path}: locked") from None
    with held:
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file."""
    if not path.exists():
        return False
    try:
        with _lock(path, timeout=0):
            return False
    except Timeout:
        return True


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Where content-keyed artefacts shared by all runs lie: `KDBENCH_CACHE` or the user's cache."""
    if override := os.environ.get("KDBENCH_CACHE"):
        return Path(override)
    from platformdirs import user_cache_path

    return user_cache_path("kdbench")


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the same disk, gone afterwards; what a kill leaves of it `sweep` finds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(path: Path, timeout: float) -> FileLock:
    # What keeps its file takes no other kind of lock, either, which a dead process would leave.
    return FileLock(path, timeout=timeout, preserve_lock_file=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _restore(key: str, value: Any) -> Any:
    """A number that JSON cannot hold; what a student wrote stays text."""
    return float(value) if key != "text" and value in ("nan", "inf", "-inf") else value
