"""Names for pluggable things: who defined what, where, and what was probably meant.

A registry is filled by importing the modules that define its items: the packages named by entry
points (kdbench's own among them) and the files given with `--plugin`.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from kdbench.base.errors import UserError

Item = TypeVar("Item")

_PLUGIN = "kdbench_plugin_"

TEACHER = "teacher"
INITIAL_STUDENT = "initial student"
REFERENCES = (TEACHER, INITIAL_STUDENT)
"""Rows that are shown beside the objectives and never ranked; no objective has their names."""


class Registry(dict[str, Item]):
    """A dictionary from names to items that knows where each was defined.

    A name that is not there raises a UserError, which offers the nearest names.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self._defined_at: dict[str, str] = {}

    def add(self, name: str, item: Item, defined_at: str) -> None:
        """Registers an item; its name may be that of no item defined somewhere else."""
        if self._defined_at.get(name, defined_at) != defined_at:
            raise UserError(
                f"{self.what} '{name}' is defined twice: {self._defined_at[name]} and "
                f"{defined_at}; rename one of them"
            )
        self[name] = item
        self._defined_at[name] = defined_at

    def __missing__(self, name: str) -> Item:
        raise UserError(unknown(self.what, name, list(self)))

    def defined_at(self, name: str) -> str:
        """`file:line` of the definition."""
        return self._defined_at[name]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """What is registered inside is forgotten afterwards."""
        items, places = dict(self), dict(self._defined_at)
        try:
            yield
        finally:
            self.clear()
            self.update(items)
            self._defined_at = places


def unknown(what: str, name: str, known: list[str]) -> str:
    """The message for a name that does not exist: the nearest ones, or all that there are."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} '{name}'; {hint}"


def load_entry_points(group: str) -> None:
    """Imports every module, and all modules of every package, that distributions name under it."""
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        package = point.value.partition(":")[0]
        load_module(package)
        folders = getattr(sys.modules[package], "__path__", ())  # none: it is a single file
        for module in pkgutil.iter_modules(folders):
            if not module.ispkg:
                load_module(f"{package}.{module.name}")


def packages_of(group: str) -> list[str]:
    """The packages and modules that distributions name under it."""
    return sorted({point.value.partition(":")[0] for point in entry_points(group=group)})


def load_module(name: str) -> None:
    """Imports a module by name; a failure becomes a message with file and line."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(_import_failure(name, error)) from error


def load_file(path: Path) -> None:
    """Imports a plugin file."""
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file")
    # Files of one name in two folders are two modules.
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    name = f"{_PLUGIN}{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(_import_failure(str(path), error)) from error


def plugin_module(stem: str) -> ModuleType | None:
    """The module of the plugin file of a name without ending that was loaded last."""
    name = re.compile(re.escape(_PLUGIN + stem) + "_[0-9a-f]{8}")
    return next((sys.modules[one] for one in reversed(sys.modules) if name.fullmatch(one)), None)


def module_folder(point: EntryPoint) -> Path:
    """The folder of the package that an entry point names, without importing it."""
    found = importlib.util.find_spec(point.value.partition(":")[0])
    if found is None or found.origin is None:
        raise UserError(f"the entry point '{point.name}' names {point.value}, which is no package")
    return Path(found.origin).parent


def _import_failure(what: str, error: BaseException) -> str:
    """`file:line: Exception: message`, with the line of the imported file that led to the error."""
    where, imported = what, ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if "importlib" not in frame.filename and frame.filename != __file__:
                imported = imported or frame.filename
                if frame.filename == imported:
                    where = f"{imported}:{frame.lineno}"
    if isinstance(error, UserError):
        return f"{where}: {error}"
    return f"{what} could not be imported: {where}: {type(error).__name__}: {error}"
