"""A suite's records from the hub: downloaded with its own libraries, cut, kept in the cache."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdbench.base import store
from kdbench.base.errors import UserError, first_line
from kdbench.config.identity import digest
from kdbench.config.schema import Data, Split
from kdbench.data import arrow
from kdbench.data.pins import check_digest, check_file
from kdbench.data.record import FIELDS
from kdbench.data.records import field_of, splits_of


def fetch(data: Data) -> Path:
    """Copies the records of a suite into the cache, unless they are there; all of them or none.

    A file is downloaded, held against its pin, and copied as it stands, or line by line where it is
    cut; of another format than its `path` names, the fields of a record are written as JSON lines.
    A file whose digest is wrong is downloaded once more. A dataset that is taken whole is loaded
    by `datasets` and saved to disk, all its splits. `HF_ENDPOINT` names another hub.

    Raises:
        UserError: a file cannot be had, or is not the one that the suite pins.
    """
    folder = hub_folder(data)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                for name, split in splits_of(data).items():
                    path = temporary / split.path
                    if split.is_whole:
                        _save_whole(split, name, path)
                    else:
                        _copy(_pinned(split, name), path, split)
                    check_file(path, split, name, local=False)
    return folder


def hub_folder(data: Data) -> Path:
    """Where in the cache `fetch` puts the files; known before they are there."""
    origin = {
        name: [
            *(split.path, split.hub, split.hub_config, split.hub_file),
            *(split.hub_rows, split.hub_revision, split.hub_sha256),
        ]
        for name, split in splits_of(data).items()
    }
    return store.cache_dir() / "hub" / digest(origin)


def _save_whole(split: Split, name: str, path: Path) -> None:
    """Every split of a dataset, as `save_to_disk` writes it; once for those that share a path."""
    if path.exists():
        return
    from datasets import load_dataset

    config, work = split.hub_config or None, path.with_name(f".{path.name}.work")
    with _reported(split, name, split.hub), arrow.quiet():
        load_dataset(
            split.hub, config, revision=split.hub_revision or None, cache_dir=str(work)
        ).save_to_disk(path)
    shutil.rmtree(work, ignore_errors=True)


def _pinned(split: Split, name: str) -> Path:
    """The file, whole, as the hub's library keeps it."""
    what = f"{split.hub}/{_file(split)}"
    field = f"{field_of(name)}.hub_sha256"
    path = _download(split, name, again=False)
    try:
        check_digest(path, split.hub_sha256, what, field)
    except UserError:
        path = _download(split, name, again=True)
        check_digest(path, split.hub_sha256, f"{what}, downloaded twice", field)
    return path


def _download(split: Split, name: str, *, again: bool) -> Path:
    from huggingface_hub import hf_hub_download

    with _reported(split, name, f"{split.hub}/{_file(split)}"):
        return Path(
            hf_hub_download(
                split.hub,
                _file(split),
                repo_type="dataset",
                revision=split.hub_revision or None,
                force_download=again,
            )
        )


@contextmanager
def _reported(split: Split, name: str, what: str) -> Iterator[None]:
    """Makes one message of whatever the hub's libraries raise, and names the way without them."""
    try:
        yield
    except Exception as error:  # they pass on those of their HTTP client, which changes
        raise UserError(
            f"{name}: {what} could not be loaded from the hub "
            f"({type(error).__name__}: {first_line(error)}). Without a network, --data-dir FOLDER "
            f"reads a local copy: FOLDER/{split.path}"
        ) from error


def _file(split: Split) -> str:
    return split.hub_file or Path(split.path).name


def _copy(source: Path, path: Path, split: Split) -> None:
    """The rows of a downloaded file that the suite takes, at their place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrow.is_json_lines(source):
        lines = [line for line in source.read_bytes().split(b"\n") if line.strip()]
    elif source.suffix == path.suffix and not split.hub_rows:
        shutil.copyfile(source, path)
        return
    else:
        lines = _lines(source, path, split)
    first, _, last = split.hub_rows.partition(":")
    kept = lines[int(first or 0) : int(last) if last else None]
    store.write_bytes(path, b"".join(line + b"\n" for line in kept))


def _lines(source: Path, path: Path, split: Split) -> list[bytes]:
    """What is not JSON lines, as JSON lines of the fields that a record can have."""
    work = path.with_name(f".{path.name}.work")
    try:
        rows = arrow.read_raw(source, work)
        known = {*FIELDS, *split.columns.values()}
        wanted = rows.select_columns([name for name in rows.column_names if name in known])
        return [json.dumps(row, ensure_ascii=False).encode() for row in wanted]
    finally:
        shutil.rmtree(work, ignore_errors=True)
