"""Where a run's files lie, written atomically and read back.

Every file appears whole or not at all (temporary name, fsync, rename). JSON lines that grow while a
process runs may lose their last line to a kill; `repair_jsonl` cuts such a line off.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kdbench.base.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not a JSON object ({error}); delete it to have it made again"
        ) from error
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file, non-finite numbers restored; [] if it is absent.

    Raises:
        UserError: a line is not JSON; with file and line.
    """
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary place for a file that becomes `path`, synced, when the block ends well.

    For what is too large to be held as bytes a second time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, since whoever writes the file may have temporary names of its own.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary / path.name
        with (temporary / path.name).open("rb") as file:
            os.fsync(file.fileno())
        (temporary / path.name).replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    """Holds an exclusive lock on a file; the system releases it when the process dies.

    Raises:
        UserError: another process holds it and `busy_message` is given; without one, it waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if busy_message is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not _taken(file):
            time.sleep(0.1)  # who only asks (`is_locked`) holds it for a moment
            if not _taken(file):
                raise UserError(busy_message)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file."""
    if not path.exists():
        return False
    with path.open("a") as file:
        return not _taken(file)


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


def _taken(file: IO[str]) -> bool:
    """Takes the lock on an open file; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


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
