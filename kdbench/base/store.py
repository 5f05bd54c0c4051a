"""Where a run's files lie, written atomically and read back.

Every file appears whole or not at all (temporary name, fsync, rename). JSON lines that grow while a
process runs may lose their last line to a kill; `repair_jsonl` cuts such a line off.
"""

import glob
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from kdbench.base.errors import UserError

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>[0-9]+)(?P<old>\.old)?\.tmp"
)
_DAY = 24 * 3600
_MAX_DEPTH = 32
"""Of the JSON that is read: nothing written here is nearly so deep."""


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file; another text is a UserError."""
    try:
        value = _object(path.read_bytes())
    except (ValueError, RecursionError) as error:
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
            row = _object(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from error
        rows.append({key: _restore(key, value) for key, value in row.items()})
    return rows


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}")
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        parts = (each.values() if isinstance(each, dict) else each for each in level)
        level = [one for part in parts for one in part if isinstance(one, dict | list)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


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
    """A temporary folder that becomes `path`, synced, when the block ends well.

    What was there is first set aside, and put back by `sweep` where a kill left it there.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _clear(left)
    old = temporary_name(path, os.getpid(), old=True)
    with _folder_beside(path) as folder:
        yield folder
        for made in folder.rglob("*"):
            sync(made)
        sync(folder)
        if path.exists():
            path.rename(old)
        folder.rename(path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary place for a file that becomes `path`, synced, when the block ends well.

    It lies in a folder, since whoever writes the file may have temporary names of its own.
    """
    with _folder_beside(path) as folder:
        yield folder / path.name
        sync(folder / path.name)
        (folder / path.name).replace(path)
        sync(path.parent)


def sweep(folder: Path) -> None:
    """Removes what killed writers left below a folder; a folder that they had set aside returns.

    What belongs to a process that is alive stays.
    """
    for path in sorted(folder.rglob(".*.tmp")):
        _clear(path)


def _clear(path: Path) -> None:
    """Removes a temporary file or folder whose process is gone, or puts back what it set aside."""
    parts = _TEMPORARY.fullmatch(path.name)
    if parts is None or _is_alive(parts["host"], int(parts["pid"]), path):
        return
    place = path.with_name(parts["name"])
    if parts["old"] and not place.exists():
        path.rename(place)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def temporary_name(path: Path, pid: int, *, old: bool = False) -> Path:
    """Where a process of this machine keeps what becomes `path`, or what it takes the place of."""
    return path.with_name(f".{path.name}.{_HOST}-{pid}{'.old' if old else ''}.tmp")


def _is_alive(host: str, pid: int, path: Path) -> bool:
    """Whether a temporary file may still be written to."""
    if host != _HOST:  # on a disk that machines share
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime < _DAY
        return True
    try:  # a zombie writes nothing
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def sync(path: Path) -> None:
    """Makes the system write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # one that comes from reading does not name the file
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def cache_dir() -> Path:
    """Where content-keyed artefacts shared by all runs lie: `KDBENCH_CACHE` or the user's cache.

    Raises:
        UserError: it is no folder, or nothing can be written there.
    """
    if override := os.environ.get("KDBENCH_CACHE"):
        folder = Path(override)
    else:
        from platformdirs import user_cache_path

        folder = user_cache_path("kdbench")
    found = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
        why = "cannot be written to" if found.is_dir() else "is a file and no folder"
        raise UserError(f"the cache {folder}: {found} {why}; KDBENCH_CACHE names another folder")
    return folder


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the same disk, gone afterwards; what a kill leaves of it `sweep` finds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_name(path, os.getpid())
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
