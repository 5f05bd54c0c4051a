"""The files that a new objective starts from: a small one that works, and its test.

Both are complete: the objective passes the conformance suite as it stands, and its test holds it
to that and to a value worked out by other means.
"""

import importlib.util
import keyword
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from kdbench import api
from kdbench.base.errors import UserError
from kdbench.base.registry import REFERENCES, module_folder
from kdbench.base.templates import render
from kdbench.variants.objective import GROUPS, NAME, NAMES, SOURCES
from kdbench.variants.variant import load_objectives

Kind = Literal["divergence", "labelled", "stateful"]

LONGEST = 32
"""Longer names are cut in tables and plots."""


def scaffold(name: str, kind: Kind, folder: Path) -> tuple[Path, Path]:
    """Writes an objective and its test; returns their paths.

    Raises:
        UserError: the name is taken or cannot be one, a file is there already, or whatever lies in
            the folder is taken for an objective.
    """
    _check_name(name)
    for point in entry_points(group="kdbench.objectives"):
        if module_folder(point) == folder.resolve():
            raise UserError(
                f"every file in {folder} is taken for an objective, and a test is none; write "
                "them elsewhere, and move the objective there when it is ready"
            )
    module = name.replace("-", "_")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    words = {"title": name, "module": module, "class_name": class_name, "kind": kind}
    paths = folder / f"{module}.py", folder / f"test_{module}.py"
    for path in paths:
        if path.exists():
            raise UserError(f"{path} exists, and is left as it is; take another name or --dir")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(
        paths, ("objective.py.jinja", "test_objective.py.jinja"), strict=True
    ):
        path.write_text(render(f"authoring/{template}", **words), encoding="utf-8")
    return paths


def _check_name(name: str) -> None:
    load_objectives()
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UserError(
            f"'{name}' cannot be an objective's name: it is lower-case words joined by '-', "
            f"such as my-loss, of at most {LONGEST} characters"
        )
    if name in NAMES:
        raise UserError(f"'{name}' is taken by {NAMES.defined_at(name)}; choose another name")
    if name in SOURCES or name in (*GROUPS, *REFERENCES):
        raise UserError(f"'{name}' means something else to kdbench; choose another name")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in api.__all__ or _is_installed(module):
        raise UserError(
            f"'{name}' cannot be a file {module}.py: Python or kdbench has a {module} of its own, "
            "and one would hide the other; choose another name"
        )


def _is_installed(module: str) -> bool:
    if module in sys.stdlib_module_names:
        return True
    found = importlib.util.find_spec(module)
    # A file in the folder that the command is called in hides nothing.
    return found is not None and Path(found.origin or "").parent != Path().resolve()
