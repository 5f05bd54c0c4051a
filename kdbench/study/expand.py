"""From what `kdbench study` was asked to the grid it trains, and to a plan for each student."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.registry import unknown
from kdbench.base.strict_yaml import read_yaml
from kdbench.pipeline.plan import Plan, Request, check_name, make_plan
from kdbench.study.design import Comparator, Design, Setting, StudyCell, check_same_study
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.parameters import Choice, Flag, Number, Value, split_list
from kdbench.variants.variant import Variant, load_objectives, parse, variant_of

Levels = dict[str, Value]
"""The values of one parameter, by what the tables call them."""


MAX_CELLS = 10_000
"""Of the grid: values of the parameter times settings."""


@dataclass(frozen=True)
class Question:
    """What the command line asks; what is None or empty has the defaults of `defaults.yaml`."""

    parameter: str
    suite: str = "instruct"
    objective: str | None = None
    values: str | None = None
    by: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    students: tuple[str, ...] = ()


@dataclass
class _Grid:
    base: Variant
    levels: Levels
    factors: dict[str, Levels]
    cells: list[StudyCell] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    by_setting: dict[Setting, Variant] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)


def make_design(question: Question) -> tuple[Design, list[Variant]]:
    """The design of a study, and every variant that it trains, each once.

    Raises:
        UserError: an unknown parameter, objective or value; a parameter that several objectives
            have, or whose values nobody declares; fewer than two values; see the messages.
    """
    load_objectives()
    text = (files(__package__) / "defaults.yaml").read_text(encoding="utf-8")
    defaults, _ = read_yaml(text, "defaults.yaml")
    base, preset = _objective(question, defaults["parameters"].get(question.parameter, {}))
    grid = _Grid(
        base=base,
        levels=_levels(base, question.parameter, _values(base, question, preset)),
        factors=_factors(base, question, preset),
    )
    _fill(grid, question.parameter)
    if len({cell.value for cell in grid.cells}) < 2:
        raise UserError(
            f"a study of {question.parameter} needs two values at least; give them with --values"
            + "".join(f"\n  left out: {text}" for text in _told(grid))
        )
    comparators, others, dropped = _comparators(grid, question, preset)
    students = question.students or tuple(defaults["students"].get(question.suite, ["student"]))
    design = Design(
        parameter=question.parameter,
        objective=base.name,
        suite=question.suite,
        values=tuple(label for label in grid.levels if any(label == c.value for c in grid.cells)),
        numeric=isinstance(base.objective.parameters[question.parameter], Number),
        factors={name: tuple(levels) for name, levels in grid.factors.items()},
        settings=tuple(grid.by_setting),
        cells=tuple(grid.cells),
        comparators=comparators,
        students=_students(students),
        left_out=(*_told(grid), *dropped),
    )
    variants = {variant.full_name: variant for variant in (*grid.variants, *others)}
    return design, list(variants.values())


def make_plans(design: Design, variants: Sequence[Variant], request: Request) -> dict[str, Plan]:
    """The run of each student, below `<out>/<name>/`, with everything checked.

    All train the same variants; teacher, tokenizer and data have the same place in the cache, since
    only the fields of the student differ.

    Args:
        design: of the study.
        variants: all that it trains.
        request: what all runs share, and the study's name.

    Raises:
        UserError: the folder holds something else, or a run of it does not fit: see `make_plan`.
    """
    name = request.name or f"study-{design.parameter}"
    check_name(name)
    folder = request.out / name
    check_same_study(folder, design)
    objectives = ",".join(variant.full_name for variant in variants)
    common = replace(request, objectives=objectives, out=folder)
    return {
        student: make_plan(replace(common, name=student, settings=(*request.settings, *settings)))
        for student, settings in design.students.items()
    }


def _objective(question: Question, preset: dict[str, Any]) -> tuple[Variant, dict[str, Any]]:
    """The objective under study, and the defaults where they are about that objective."""
    parameter = question.parameter
    owners = [name for name in OBJECTIVES if parameter in OBJECTIVES[name].parameters]
    if not owners:
        known = sorted({name for own in OBJECTIVES for name in OBJECTIVES[own].parameters})
        raise UserError(unknown("parameter", parameter, known))
    usual = preset.get("objective")
    if question.objective is None and usual is None and len(owners) > 1:
        raise UserError(
            f"several objectives have a parameter {parameter}: {', '.join(owners)}; "
            f"say which with --objective"
        )
    base = parse(question.objective or usual or owners[0])
    if parameter not in base.objective.parameters:
        raise UserError(
            f"{base.objective.name} has no parameter {parameter}; "
            f"these objectives have: {', '.join(owners)}"
        )
    same = usual is not None and parse(usual).objective is base.objective
    return base, preset if same else {}


def _values(base: Variant, question: Question, preset: dict[str, Any]) -> list[str]:
    """The values asked for, the usual ones, or those that the objective declares."""
    name, objective = question.parameter, base.objective
    declared = objective.parameters[name]
    if text := question.values or preset.get("values"):
        return split_list(text)
    if name in objective.grid:
        return [declared.write(value) for value in objective.grid[name]]
    if isinstance(declared, Choice):
        return list(declared.options)
    if isinstance(declared, Flag):
        return ["false", "true"]
    raise UserError(
        f"{objective.name} declares no grid for {name} (it lies in {declared.describe()}); "
        f"give the values with --values, for example --values 0.1,0.5"
    )


def _levels(base: Variant, name: str, items: Sequence[str]) -> Levels:
    declared = base.objective.parameters[name]
    levels: Levels = {}
    for item in items:
        try:
            value = declared.read(item)
        except ValueError as error:
            raise UserError(f"{base.objective.name}: {name}={item} {error}") from error
        levels[value.name if isinstance(value, Variant) else declared.write(value)] = value
    if isinstance(declared, Number):
        levels = dict(sorted(levels.items(), key=lambda level: float(level[0])))
    return levels


def _factors(base: Variant, question: Question, preset: dict[str, Any]) -> dict[str, Levels]:
    factors: dict[str, Levels] = {}
    for text in question.by or preset.get("by", ()):
        name, equals, values = text.partition("=")
        if not equals or not split_list(values):
            raise UserError(f"--by {text}: write PARAMETER=VALUE,VALUE, e.g. --by order=pr,qr")
        name = name.strip()
        if name not in base.objective.parameters:
            known = list(base.objective.parameters)
            raise UserError(unknown(f"parameter of {base.objective.name}", name, known))
        if name == question.parameter or name in factors:
            raise UserError(f"--by {text}: {name} already has its values")
        factors[name] = _levels(base, name, split_list(values))
    return factors


def _fill(grid: _Grid, parameter: str) -> None:
    """Makes every cell's variant; a combination that the objective refuses is written down."""
    size = math.prod(map(len, grid.factors.values())) * len(grid.levels)
    if size > MAX_CELLS:
        raise UserError(f"the study would have {size:,} cells; at most {MAX_CELLS:,}")
    for setting in itertools.product(*grid.factors.values()):
        fixed = {
            name: grid.factors[name][label]
            for name, label in zip(grid.factors, setting, strict=True)
        }
        for label, value in grid.levels.items():
            try:
                variant = _with(grid.base, {**fixed, parameter: value})
            except UserError as error:
                grid.refused.setdefault(str(error), []).append(f"{parameter}={label}")
                continue
            grid.cells.append(StudyCell(variant=variant.name, value=label, setting=setting))
            grid.variants.append(variant)
            grid.by_setting.setdefault(setting, variant)


def _with(base: Variant, params: dict[str, Value]) -> Variant:
    return replace(base, params=variant_of(base.objective, {**base.params, **params}).params)


def _told(grid: _Grid) -> tuple[str, ...]:
    return tuple(
        f"{', '.join(dict.fromkeys(values))}: {reason}" for reason, values in grid.refused.items()
    )


def _comparators(
    grid: _Grid, question: Question, preset: dict[str, Any]
) -> tuple[tuple[Comparator, ...], list[Variant], list[str]]:
    """What the family is compared with, the variants that takes, and the usual ones left out."""
    found, variants, dropped = [], [], list[str]()
    for text in question.against or preset.get("against", ()):
        try:
            comparator, variant = _comparator(grid, question.parameter, text)
        except UserError as error:
            if question.against:
                raise UserError(f"--against {text}: {error}") from error
            dropped.append(f"comparison with {text}: {error}")
            continue
        found.append(comparator)
        variants += [] if variant is None else [variant]
    return tuple({item.label: item for item in found}.values()), variants, dropped


def _comparator(grid: _Grid, parameter: str, text: str) -> tuple[Comparator, Variant | None]:
    """One of `VARIANT`, `VARIANT:FACTOR=VALUE,...` or `PARAMETER=VALUE`."""
    expression, _, condition = text.partition(":")
    name, equals, item = expression.partition("=")
    settings = _where(grid, condition)
    if equals and name.strip() == parameter:
        (label,) = _levels(grid.base, parameter, [item])
        own = {cell.setting for cell in grid.cells if cell.value == label}
        if not own & set(settings):
            raise UserError(f"{label} is not among the values of the study there")
        settings = tuple(setting for setting in settings if setting in own)
        return Comparator(
            label=f"{parameter}={label}", variant=None, value=label, settings=settings
        ), None
    variant = parse(expression)
    return Comparator(
        label=variant.name, variant=variant.name, value=None, settings=settings
    ), variant


def _where(grid: _Grid, condition: str) -> tuple[Setting, ...]:
    wanted: dict[str, Value] = {}
    for item in split_list(condition):
        name, _, value = item.partition("=")
        if name not in grid.base.objective.parameters:
            known = list(grid.base.objective.parameters)
            raise UserError(unknown(f"parameter of {grid.base.objective.name}", name, known))
        (wanted[name],) = _levels(grid.base, name, [value]).values()
    settings = tuple(
        setting
        for setting, variant in grid.by_setting.items()
        if all(_same(variant.params[name], value) for name, value in wanted.items())
    )
    if not settings:
        raise UserError(f"no setting of the study has {condition}")
    return settings


def _same(value: Value, other: Value) -> bool:
    names = (item.full_name if isinstance(item, Variant) else item for item in (value, other))
    return len(set(names)) == 1


def _students(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    students: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, fields = text.partition("=")
        if name == "plots":
            raise UserError(f"--student {text}: plots is the folder of the study's plots")
        if name in students:
            raise UserError(f"--student {text}: there are two students of that name")
        pairs = [item.partition(":") for item in fields.split(",") if item.strip()]
        if not all(colon and value.strip() for _, colon, value in pairs):
            raise UserError(
                f"--student {text}: write NAME=FIELD:VALUE,..., for example "
                "--student small=student.architecture.width:32"
            )
        students[name] = tuple(f"{key.strip()}={value.strip()}" for key, _, value in pairs)
    return students
