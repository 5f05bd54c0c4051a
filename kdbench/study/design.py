"""What a study trains: every value of one parameter in every setting of some others.

A design is data, written to `study.yaml`: the report reads it back without the objectives' code.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.paths import inside
from kdbench.base.strict_yaml import dump_yaml, read_yaml_file, validated
from kdbench.config.identity import differences
from kdbench.config.schema import Fields
from kdbench.runs.folder import STUDY

Setting = tuple[str, ...]
"""One level of every factor, in the order of the design's factors."""


class StudyCell(Fields):
    """One value of the parameter in one setting."""

    variant: str
    """The name that the run's tables have for it."""
    value: str
    setting: Setting


class Comparator(Fields):
    """What the family is compared with, in the settings whose special case it is."""

    label: str
    variant: str | None = None
    """Another variant, or None for the family itself at `value`."""
    value: str | None = None
    settings: tuple[Setting, ...]


class Design(Fields):
    """A study's grid, students and comparators, all by the names that the runs store."""

    version: int = 1
    parameter: str
    objective: str
    suite: str
    values: tuple[str, ...]
    numeric: bool
    """Whether the values are numbers, which are in ascending order."""
    factors: dict[str, tuple[str, ...]]
    settings: tuple[Setting, ...]
    """Those in which the objective takes at least one value."""
    cells: tuple[StudyCell, ...]
    comparators: tuple[Comparator, ...]
    students: dict[str, tuple[str, ...]]
    """By the name of its run, the settings of the suite that make it, as for `--set`."""
    left_out: tuple[str, ...] = ()
    """What was asked for and is not part of it, with the reason."""


def find_study(name: str, out: Path) -> Path | None:
    """The folder of a study by its name below `out`, or by its path; None where there is none."""
    return next((path for path in (out / name, Path(name)) if (path / STUDY).exists()), None)


def read_design(folder: Path) -> Design:
    """The design of a study's folder.

    Raises:
        UserError: its file is not what `kdbench study` wrote.
    """
    path = folder / STUDY
    try:
        design = validated(Design, read_yaml_file(path)[0])
    except (UserError, ValidationError) as error:
        raise UserError(
            f"{path}: not the design of a study; restore it, or use another --name"
        ) from error
    for student in design.students:
        inside(folder, student, f"{path}: students")
    return design


def write_design(folder: Path, design: Design) -> None:
    """Writes `study.yaml`: the report is of the last command's grid."""
    tree: Any = design.model_dump(mode="json")
    store.write_text(folder / STUDY, dump_yaml(tree))


def check_same_study(folder: Path, design: Design) -> None:
    """Refuses to turn a study into another one; its grid may grow and shrink.

    Raises:
        UserError: the folder holds a run, or a study of something else.
    """
    if (folder / "spec.yaml").exists():
        raise UserError(f"{folder} is a run; give the study another --name")
    if not (folder / STUDY).exists():
        return
    fields = {"parameter", "objective", "suite"}
    old, new = (item.model_dump(include=fields) for item in (read_design(folder), design))
    if changed := differences(old, new):
        raise UserError(
            f"{folder} is a study of something else ({'; '.join(changed)}); use another --name"
        )
