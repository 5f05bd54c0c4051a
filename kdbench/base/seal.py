"""Digests beside what is kept: written with it, checked when it is opened, once a process.

A folder holds `digests.json` with the size and the xxh3 digest of each of its files. A file that
stands alone has `<name>.xxh3` beside it, or its digest in the file that vouches for it. These guard
against damage; where a digest is an identity, it is a sha256.
"""

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import xxhash

from kdbench.base import store
from kdbench.base.errors import UserError

DIGESTS = "digests.json"
_CHUNK = 1 << 22
_checked: dict[tuple[Path, str], tuple[int, int]] = {}
"""Files that this process found whole, with their digests: size and time of change then."""


class DamagedError(UserError):
    """What lies at a path is not what was written there."""


def quick_digest(path: Path) -> str:
    """The xxh3 digest of a file's bytes, as 32 hexadecimal digits."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def quick_digest_of(content: bytes) -> str:
    """The xxh3 digest of bytes, as `quick_digest` gives it of a file."""
    return xxhash.xxh3_128_hexdigest(content)


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """A new folder, see `store.new_folder`, with digests of its files."""
    with store.new_folder(path) as temporary:
        yield temporary
        seal(temporary)


def seal(folder: Path) -> None:
    """Writes the digests of all files below a folder into it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS]
    for path in files:  # what vouches for them is not on the disk before them
        store.sync(path)
    digests = {path.relative_to(folder).as_posix(): quick_digest(path) for path in files}
    store.write_json(folder / DIGESTS, digests)


def check_folder(folder: Path, only: Collection[str] | None = None) -> None:
    """Checks that a sealed folder holds the files that were written, byte for byte.

    Args:
        folder: what `sealed_folder` or `seal` made.
        only: names of the files to check; all where it is left out.

    Raises:
        DamagedError: a file is missing, another one, or without a digest.
    """
    seal_path = folder / DIGESTS
    if not seal_path.is_file():
        raise DamagedError(f"{folder}: incomplete, {DIGESTS} is missing")
    try:
        digests = store.read_json(seal_path)
    except UserError as error:
        raise DamagedError(f"{seal_path}: damaged, not JSON") from error
    if not isinstance(digests, Mapping):
        raise DamagedError(f"{seal_path}: damaged, not a list of digests")
    for name, digest in digests.items():
        if only is None or name in only or not (folder / name).exists():
            check_file(folder / name, digest)


def check_file(path: Path, digest: object) -> None:
    """Checks that a file has the digest that vouches for it.

    Raises:
        DamagedError: it is missing, or has another one.
    """
    if not path.is_file():
        raise DamagedError(f"{path}: missing")
    state = path.stat()
    key, now = (path.resolve(), str(digest)), (state.st_size, state.st_mtime_ns)
    if _checked.get(key) == now:
        return
    if quick_digest(path) != digest:
        raise DamagedError(f"{path}: damaged, its bytes are not those that were written")
    _checked[key] = now


def sidecar(path: Path) -> Path:
    """The file that holds the digest of a file that stands alone."""
    return path.with_name(f"{path.name}.xxh3")


def seal_file(path: Path) -> None:
    """Writes the digest of a file beside it; before that, the file counts as unfinished."""
    store.write_text(sidecar(path), quick_digest(path) + "\n")


def is_sealed(path: Path) -> bool:
    """Whether a file and its digest are there."""
    return path.is_file() and sidecar(path).is_file()


def check_sealed(path: Path) -> None:
    """Checks a file against the digest beside it.

    Raises:
        DamagedError: it is missing, or has another one.
    """
    check_file(path, sidecar(path).read_bytes().decode("ascii", "replace").strip())


def remove(*paths: Path) -> None:
    """Removes files and folders, each in one step as others see it."""
    for path in paths:
        if path.is_dir():
            aside = store.temporary_name(path, os.getpid())
            path.rename(aside)
            shutil.rmtree(aside)
        else:
            path.unlink(missing_ok=True)
