"""A suite's files from the hub: downloaded with the hub's own library, cut, kept in the cache."""

import json
from pathlib import Path

from kdbench.base import store
from kdbench.base.errors import UserError, first_line
from kdbench.config.identity import digest
from kdbench.config.schema import Data, Split
from kdbench.data.pins import check_digest, check_file
from kdbench.data.records import field_of, splits_of


def fetch(data: Data) -> Path:
    """Copies the files of a suite into the cache, unless they are there; all of them or none.

    The lines are copied as they stand; of Parquet, the three fields of a record are written as
    lines. A file whose digest is wrong is downloaded once more. `HF_ENDPOINT` names another hub.

    Raises:
        UserError: a file cannot be had, or is not the one that the suite pins.
    """
    folder = hub_folder(data)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                for name, split in splits_of(data).items():
                    path = temporary / split.path
                    _copy_rows(_pinned(split, name), path, split.hub_rows)
                    check_file(path, split, name, local=False)
    return folder


def hub_folder(data: Data) -> Path:
    """Where in the cache `fetch` puts the files; known before they are there."""
    origin = {
        name: [
            *(split.hub, split.hub_file, split.hub_rows, split.hub_revision, split.path),
            *filter(None, [split.hub_sha256]),
        ]
        for name, split in splits_of(data).items()
    }
    return store.cache_dir() / "hub" / digest(origin)


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

    try:
        return Path(
            hf_hub_download(
                split.hub,
                _file(split),
                repo_type="dataset",
                revision=split.hub_revision or None,
                force_download=again,
            )
        )
    except Exception as error:  # the library passes on those of its HTTP client, which changes
        raise UserError(
            f"{name}: {split.hub}/{_file(split)} could not be loaded from the hub "
            f"({type(error).__name__}: {first_line(error)}). Without a network, --data-dir FOLDER "
            f"reads a local copy: FOLDER/{split.path}"
        ) from error


def _file(split: Split) -> str:
    return split.hub_file or Path(split.path).name


def _copy_rows(source: Path, path: Path, rows: str) -> None:
    lines = _parquet_lines(source) if source.suffix == ".parquet" else _lines(source)
    first, _, last = rows.partition(":")
    kept = lines[int(first or 0) : int(last) if last else None]
    store.write_bytes(path, b"".join(line + b"\n" for line in kept))


def _lines(source: Path) -> list[bytes]:
    return [line for line in source.read_bytes().split(b"\n") if line.strip()]


def _parquet_lines(source: Path) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(source).names
        columns = [name for name in ("instruction", "input", "output") if name in known]
        rows = pq.read_table(source, columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: not a Parquet file that can be read: {error}") from error
    return [json.dumps(row, ensure_ascii=False).encode() for row in rows]
