"""Where the files of a suite's records are: a folder, made from nothing, or the hub's."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.identity import digest
from kdbench.config.schema import Data, Suite
from kdbench.data.hub import fetch, hub_folder
from kdbench.data.pins import check_file
from kdbench.data.records import splits_of


def locate(suite: Suite, data_dir: Path | None) -> Path:
    """The folder below which a suite's files lie, made or fetched where need be.

    Raises:
        UserError: the folder is missing, a file could not be had from the hub, or a file is not
            the one that the suite pins.
    """
    data = suite.data
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    if data_dir is None and data.generator:
        return _generated(data)
    if data_dir is None and from_hub(data):
        fetch(data)
    folder = place(data, data_dir)
    for name, split in splits_of(data).items():
        if (folder / split.path).is_file():
            check_file(folder / split.path, split, name, local=is_local(data, data_dir))
    return folder


def place(data: Data, data_dir: Path | None) -> Path:
    """The folder below which the files lie or will lie; nothing is made or fetched."""
    if data_dir is not None:
        return data_dir
    if data.generator:
        return _generated_folder(data)
    if from_hub(data):
        return hub_folder(data)
    return Path.cwd()


def from_hub(data: Data) -> bool:
    """Whether the records are taken from the hub where no folder is given."""
    return not data.generator and all(split.hub for split in splits_of(data).values())


def is_local(data: Data, data_dir: Path | None) -> bool:
    """Whether the files are the user's own or a mirror's, and not copies of the hub's."""
    return data_dir is not None or not from_hub(data)


def _generated(data: Data) -> Path:
    folder = _generated_folder(data)
    generate = _generator(data)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                generate(temporary, seed=data.generator_seed)
    return folder


def _generated_folder(data: Data) -> Path:
    _generator(data)
    module = data.generator.partition(":")[0]
    code = {path.name: store.file_digest(path) for path in _sources(module)}
    return store.cache_dir() / "data" / digest(data.generator, data.generator_seed, code)


def _generator(data: Data) -> Callable[..., Any]:
    module, _, function = data.generator.partition(":")
    try:
        generate: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data.generator: {data.generator} cannot be imported: {error}") from error
    return generate


def _sources(module: str) -> list[Path]:
    """The generator's own source files: a changed world is another data set."""
    origin = Path(str(importlib.import_module(module).__file__))
    return sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
