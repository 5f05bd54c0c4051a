"""Digests beside what is kept: written with it, checked when it is opened, once a process.

A folder holds `digests.json` with the size and the xxh3 digest of each of its files. A file that
stands alone has `<name>.xxh3` beside it, or its digest in the file that vouches for it. These guard
against damage; where a digest is an identity, it is a sha256.
"""

import shutil
from collections.abc import Iterator, Mapping
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


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """A new folder, see `store.new_folder`, with digests of its files."""
    with store.new_folder(path) as temporary:
        yield temporary
        seal(temporary)


def seal(folder: Path) -> None:
    """Writes the digests of all files below a folder into it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS]
    digests = {path.relative_to(folder).as_posix(): quick_digest(path) for path in files}
    store.write_json(folder / DIGESTS, digests)


def check_folder(folder: Path) -> None:
    """Checks that a sealed folder holds the files that were written, byte for byte.

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


def opened(folder: Path, *vouchers: Path) -> Path:
    """A sealed folder that can be made again, after a check.

    Args:
        folder: what is to be read.
        vouchers: files whose existence says that it is complete.

    Raises:
        UserError: it is damaged; it has been removed with its vouchers, so that the same command
            makes it again.
    """
    try:
        check_folder(folder)
    except DamagedError as error:
        for voucher in vouchers:
            voucher.unlink(missing_ok=True)
        remove(folder)
        raise UserError(f"{error}; it was removed: the same command makes it again") from error
    return folder


def remove(folder: Path) -> None:
    """Removes a folder in one step as others see it."""
    aside = folder.with_name(f".{folder.name}.damaged.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
