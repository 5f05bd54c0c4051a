"""Where the files of a suite's records are: in a folder, made from nothing, or on the hub."""

import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from kdbench.base import store
from kdbench.base.errors import UserError, first_line
from kdbench.base.paths import check_below, inside
from kdbench.base.registry import load_module, packages_of, plugin_module
from kdbench.config.identity import digest
from kdbench.config.load import SUITES
from kdbench.config.schema import Data, Split, Suite
from kdbench.data import arrow
from kdbench.data.record import FIELDS
from kdbench.data.records import check_digest, check_file, field_of, splits_of


def locate(suite: Suite, data_dir: Path | None) -> Path:
    """The folder below which a suite's files lie, made or fetched where need be.

    A missing folder, a file that the hub does not give, and one that the suite does not pin, are
    UserErrors.
    """
    data = suite.data
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    folder = place(data, data_dir)
    if data_dir is None and (data.generator or from_hub(data)):
        with store.locked(folder.with_suffix(".lock")):
            if not folder.exists():
                with store.new_folder(folder) as temporary:
                    _fill(temporary, data)
                    _check_names(data, temporary, links=False)  # of what lies there now
    if data_dir is None and data.generator:
        return folder
    for name, split in splits_of(data).items():
        if (folder / split.path).exists():
            check_file(folder / split.path, split, name, local=is_local(data, data_dir))
    return folder


def place(data: Data, data_dir: Path | None) -> Path:
    """The folder below which the files lie or will lie; nothing is made or fetched.

    Raises:
        UserError: there is no such generator; or a file's name leads out of the folder.
    """
    folder = _folder(data, data_dir)
    if data_dir is not None or data.generator or from_hub(data):
        _check_names(data, folder, links=data_dir is not None)
    return folder


def _check_names(data: Data, folder: Path, *, links: bool) -> None:
    """Refuses files outside the folder; without one, `path` is the user's own, wherever it is."""
    for name, split in splits_of(data).items():
        inside(folder, split.path, f"{field_of(name)}.path", links=links)
        for field in ("hub", "hub_config", "hub_file", "hub_revision"):
            if value := getattr(split, field):
                check_below(value, f"{field_of(name)}.{field}")


def _folder(data: Data, data_dir: Path | None) -> Path:
    if data_dir is not None:
        return data_dir
    if data.generator:
        module, _ = _generator(data)
        origin = Path(str(module.__file__))
        sources = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
        code = {path.name: store.file_digest(path) for path in sources}  # another world, other data
        return store.cache_dir() / "data" / digest(data.generator, data.generator_seed, code)
    if from_hub(data):
        origins = {
            name: [
                *(split.path, split.hub, split.hub_config, split.hub_file),
                *(split.hub_rows, split.hub_revision, split.hub_sha256),
            ]
            for name, split in splits_of(data).items()
        }
        return store.cache_dir() / "hub" / digest(origins)
    return Path.cwd()


def from_hub(data: Data) -> bool:
    """Whether the records are taken from the hub where no folder is given."""
    return not data.generator and all(split.hub for split in splits_of(data).values())


def is_local(data: Data, data_dir: Path | None) -> bool:
    """Whether the files are the user's own, or those of a mirror, and not copies of the hub's."""
    return data_dir is not None or not from_hub(data)


def _generator(data: Data) -> tuple[ModuleType, Callable[..., Any]]:
    """The module that makes the records, and its function.

    A suite may come from anybody, so that it names no other code than that of an installed package
    of suites, or of a file that the user named.

    Raises:
        UserError: it names something else, or what is not there.
    """
    name, _, function = data.generator.partition(":")
    module = plugin_module(name)
    if module is None:
        packages = packages_of(SUITES)
        if not any(name == package or name.startswith(f"{package}.") for package in packages):
            raise UserError(
                f"data.generator: {data.generator}: only a function of an installed package of "
                f"suites ({', '.join(packages)}) is called, or of a file that you name with "
                f"--plugin: --plugin {name.rpartition('.')[2] or 'FILE'}.py"
            )
        load_module(name)
        module = sys.modules[name]
    made = getattr(module, function, None)
    # What the module has imported from elsewhere is not its own.
    if not inspect.isfunction(made) or not f"{made.__module__}.".startswith(f"{module.__name__}."):
        raise UserError(f"data.generator: {data.generator}: {name} defines no such function")
    return module, made


def _fill(folder: Path, data: Data) -> None:
    """Generates the records of a suite, or copies them from the hub with its own libraries.

    A file is copied as it stands, or line by line where it is cut; of another format than its
    `path` names, the fields of a record are written as JSON lines. A dataset that is taken whole is
    loaded by `datasets` and saved to disk, all its splits. `HF_ENDPOINT` names another hub.
    """
    if data.generator:
        _generator(data)[1](folder, seed=data.generator_seed)
        return
    for name, split in splits_of(data).items():
        path = folder / split.path
        if split.is_whole:
            _save_whole(split, name, path)
        else:
            _copy(_download(split, name), path, split)
        check_file(path, split, name, local=False)


def _save_whole(split: Split, name: str, path: Path) -> None:
    """Every split of a dataset, as `save_to_disk` writes it; once for those that share a path."""
    if path.exists():
        return
    from datasets import load_dataset

    config, revision = split.hub_config or None, split.hub_revision or None
    with _work_beside(path) as work, _reported(split, name, split.hub), arrow.quiet():
        whole = load_dataset(split.hub, config, revision=revision, cache_dir=str(work))
        whole.save_to_disk(path)


def _download(split: Split, name: str) -> Path:
    """The file, whole, as the hub's library keeps it; a wrong one is downloaded once more."""
    from huggingface_hub import hf_hub_download

    file, revision = split.hub_file or Path(split.path).name, split.hub_revision or None
    what = f"{split.hub}/{file}"
    for again in (False, True):
        with _reported(split, name, what):
            found = hf_hub_download(
                split.hub, file, repo_type="dataset", revision=revision, force_download=again
            )
        path = Path(found)
        if not split.hub_sha256 or arrow.source_digest(path) == split.hub_sha256:
            return path
    field = f"{field_of(name)}.hub_sha256"
    check_digest(path, split.hub_sha256, f"{what}, downloaded twice", field)
    return path


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


@contextmanager
def _work_beside(path: Path) -> Iterator[Path]:
    """A folder for a library's cache, which vanishes."""
    work = path.with_name(f".{path.name}.work")
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(source: Path, path: Path, split: Split) -> None:
    """The rows of a downloaded file that the suite takes, at their place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrow.is_json_lines(source):
        lines = [line for line in source.read_bytes().split(b"\n") if line.strip()]
    elif source.suffix == path.suffix and not split.hub_rows:
        shutil.copyfile(source, path)
        return
    else:  # the fields that a record can have, as JSON lines
        known = {*FIELDS, *split.columns.values()}
        with _work_beside(path) as work:
            rows = arrow.read_raw(source, work)
            kept = rows.select_columns([name for name in rows.column_names if name in known])
            lines = [json.dumps(row, ensure_ascii=False).encode() for row in kept]
    first, _, last = split.hub_rows.partition(":")
    lines = lines[int(first or 0) : int(last) if last else None]
    store.write_bytes(path, b"".join(line + b"\n" for line in lines))
