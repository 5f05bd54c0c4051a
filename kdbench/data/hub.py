"""A suite's files from the hub: downloaded with the hub's own library, cut, kept in the cache."""

from pathlib import Path

from kdbench import store
from kdbench.data.records import check_digest, splits_of
from kdbench.errors import UserError
from kdbench.spec import Data, Split, digest


def fetch(data: Data) -> Path:
    """Copies the files of a suite into the cache, unless they are there; all of them or none.

    The lines are copied as they stand, so that a file has the same digest wherever it is made.
    `HF_ENDPOINT` names another hub. A broken connection is taken up where it broke off (by the
    hub's library); a file whose digest is wrong is downloaded once more.

    Raises:
        UserError: a file cannot be had, or is not the one that the suite pins.
    """
    folder = hub_folder(data)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                for name, split in splits_of(data).items():
                    _fetch_split(temporary / split.path, split, name)
    return folder


def hub_folder(data: Data) -> Path:
    """Where in the cache `fetch` puts the files; known before they are there."""
    origin = {
        name: [split.hub, split.hub_file, split.hub_rows, split.hub_revision, split.path]
        for name, split in splits_of(data).items()
    }
    return store.cache_dir() / "hub" / digest(origin)


def _fetch_split(path: Path, split: Split, name: str) -> None:
    _copy_rows(_download(split, name, again=False), path, split.hub_rows)
    try:
        check_digest(path, split, name)
    except UserError:
        _copy_rows(_download(split, name, again=True), path, split.hub_rows)
        try:
            check_digest(path, split, name)
        except UserError as error:
            raise UserError(f"{split.hub}, downloaded twice: {error}") from error


def _download(split: Split, name: str, *, again: bool) -> Path:
    from huggingface_hub import hf_hub_download

    file = split.hub_file or Path(split.path).name
    try:
        return Path(
            hf_hub_download(
                split.hub,
                file,
                repo_type="dataset",
                revision=split.hub_revision or None,
                force_download=again,
            )
        )
    except Exception as error:  # the library passes on those of its HTTP client, which changes
        raise UserError(
            f"{name}: {split.hub}/{file} could not be loaded from the hub "
            f"({type(error).__name__}: {_first_line(error)}). Without a network, --data-dir FOLDER "
            f"reads a local copy: FOLDER/{split.path}"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "no message")


def _copy_rows(source: Path, path: Path, rows: str) -> None:
    lines = [line for line in source.read_bytes().split(b"\n") if line.strip()]
    first, _, last = rows.partition(":")
    kept = lines[int(first or 0) : int(last) if last else None]
    store.write_bytes(path, b"".join(line + b"\n" for line in kept))
