"""From what `kdbench study` was asked to the grid it trains, and to a plan for each student."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def make_design(question: Question) -> tuple[Design, list[Variant]]:
    """The design of a study, and every variant that it trains, each once.

    Raises:
        UserError: an unknown parameter, objective or value; a parameter that several objectives
            have, or whose values nobody declares; fewer than two values; see the messages.
    """
    load_objectives()
    text = (files(__package__) / "defaults.yaml").read_text(encoding="utf-8")
    defaults, _ = read_yaml(text, "defaults.yaml")
    grid = _Grid(
        question, *_objective(question, defaults["parameters"].get(question.parameter, {}))
    )
    taken = {cell.value for cell in grid.cells}
    if len(taken) < 2:
        raise UserError(
            f"a study of {question.parameter} needs two values at least; give them with --values"
            + "".join(f"\n  left out: {text}" for text in grid.left_out)
        )
    comparators = grid.comparators()
    students = question.students or tuple(defaults["students"].get(question.suite, ["student"]))
    design = Design(
        parameter=question.parameter,
        objective=grid.base.name,
        suite=question.suite,
        values=tuple(label for label in grid.levels if label in taken),
        numeric=isinstance(grid.base.objective.parameters[question.parameter], Number),
        factors={name: tuple(levels) for name, levels in grid.factors.items()},
        settings=tuple(grid.by_setting),
        cells=tuple(grid.cells),
        comparators=comparators,
        students=_students(students),
        left_out=tuple(grid.left_out),
    )
    variants = {variant.full_name: variant for variant in grid.variants}
    return design, list(variants.values())


def make_plans(design: Design, variants: Sequence[Variant], request: Request) -> dict[str, Plan]:
    """The run of each student, below `<out>/<name>/`, with everything checked.

    All train the same variants; teacher, tokenizer and data have the same place in the cache, since
    only the fields of the student differ. `request` is what all runs share, and the study's name.

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


def _objective(question: Question, usual: dict[str, Any]) -> tuple[Variant, dict[str, Any]]:
    """The objective under study, and the usual answers where they are about that objective."""
    parameter = question.parameter
    owners = [name for name in OBJECTIVES if parameter in OBJECTIVES[name].parameters]
    if not owners:
        known = sorted({name for own in OBJECTIVES for name in OBJECTIVES[own].parameters})
        raise UserError(unknown("parameter", parameter, known))
    default = usual.get("objective")
    if question.objective is None and default is None and len(owners) > 1:
        raise UserError(
            f"several objectives have a parameter {parameter}: {', '.join(owners)}; "
            f"say which with --objective"
        )
    base = parse(question.objective or default or owners[0])
    if parameter not in base.objective.parameters:
        raise UserError(
            f"{base.objective.name} has no parameter {parameter}; "
            f"these objectives have: {', '.join(owners)}"
        )
    is_usual = default is not None and parse(default).objective is base.objective
    return base, usual if is_usual else {}


class _Grid:
    """The grid that a question asks for.

    Attributes:
        base: the objective under study, with its fixed parameters and sequences.
        levels: the values asked for.
        by_setting: a variant of each setting in which the objective takes a value.
        variants: of the cells, and of the comparators.
        left_out: what was asked for and is not part of the grid, with the reason.
    """

    def __init__(self, question: Question, base: Variant, usual: dict[str, Any]) -> None:
        self.question, self.base, self.usual = question, base, usual
        self.levels = self._levels(question.parameter, self._values())
        self.factors = self._factors()
        self.cells: list[StudyCell] = []
        self.variants: list[Variant] = []
        self.by_setting: dict[Setting, Variant] = {}
        self.left_out = self._fill()

    def _values(self) -> list[str]:
        """The values asked for, the usual ones, or those that the objective declares."""
        name, objective = self.question.parameter, self.base.objective
        declared = objective.parameters[name]
        if text := self.question.values or self.usual.get("values"):
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

    def _levels(self, name: str, items: Sequence[str]) -> Levels:
        objective, levels = self.base.objective, Levels()
        if name not in objective.parameters:
            what = f"parameter of {objective.name}"
            raise UserError(unknown(what, name, list(objective.parameters)))
        declared = objective.parameters[name]
        for item in items:
            try:
                value = declared.read(item)
            except ValueError as error:
                raise UserError(f"{objective.name}: {name}={item} {error}") from error
            levels[value.name if isinstance(value, Variant) else declared.write(value)] = value
        if isinstance(declared, Number):
            return dict(sorted(levels.items(), key=lambda level: float(level[0])))
        return levels

    def _factors(self) -> dict[str, Levels]:
        factors: dict[str, Levels] = {}
        for text in self.question.by or self.usual.get("by", ()):
            name, equals, values = text.partition("=")
            name, items = name.strip(), split_list(values)
            if not equals or not items:
                raise UserError(f"--by {text}: write PARAMETER=VALUE,VALUE, e.g. --by order=pr,qr")
            if name == self.question.parameter or name in factors:
                raise UserError(f"--by {text}: {name} already has its values")
            factors[name] = self._levels(name, items)
        return factors

    def _fill(self) -> list[str]:
        """Makes every cell's variant; returns the values that the objective refuses, by reason."""
        size = math.prod(map(len, self.factors.values())) * len(self.levels)
        if size > MAX_CELLS:
            raise UserError(f"the study would have {size:,} cells; at most {MAX_CELLS:,}")
        parameter, base, refused = self.question.parameter, self.base, dict[str, dict[str, None]]()
        for setting in itertools.product(*self.factors.values()):
            named = zip(self.factors.items(), setting, strict=True)
            fixed = {name: levels[label] for (name, levels), label in named}
            for label, value in self.levels.items():
                params = {**base.params, **fixed, parameter: value}
                try:
                    variant = replace(base, params=variant_of(base.objective, params).params)
                except UserError as error:
                    refused.setdefault(str(error), {})[f"{parameter}={label}"] = None
                    continue
                self.cells.append(StudyCell(variant=variant.name, value=label, setting=setting))
                self.variants.append(variant)
                self.by_setting.setdefault(setting, variant)
        return [f"{', '.join(values)}: {reason}" for reason, values in refused.items()]

    def comparators(self) -> tuple[Comparator, ...]:
        """What the family is compared with; a usual one that fits no setting is left out."""
        found = {}
        for text in self.question.against or self.usual.get("against", ()):
            try:
                comparator = self._comparator(text)
            except UserError as error:
                if self.question.against:
                    raise UserError(f"--against {text}: {error}") from error
                self.left_out.append(f"comparison with {text}: {error}")
                continue
            found[comparator.label] = comparator
        return tuple(found.values())

    def _comparator(self, text: str) -> Comparator:
        """One of `VARIANT`, `VARIANT:FACTOR=VALUE,...` or `PARAMETER=VALUE`."""
        expression, _, condition = text.partition(":")
        name, equals, item = expression.partition("=")
        parameter, settings = self.question.parameter, self._where(condition)
        if not equals or name.strip() != parameter:
            variant = parse(expression)
            self.variants.append(variant)
            return Comparator(label=variant.name, variant=variant.name, settings=settings)
        (label,) = self._levels(parameter, [item])
        own = {cell.setting for cell in self.cells if cell.value == label}
        settings = tuple(setting for setting in settings if setting in own)
        if not settings:
            raise UserError(f"{label} is not among the values of the study there")
        return Comparator(label=f"{parameter}={label}", value=label, settings=settings)

    def _where(self, condition: str) -> tuple[Setting, ...]:
        """The settings of which all of `FACTOR=VALUE,...` holds."""
        wanted: dict[str, Value] = {}
        for item in split_list(condition):
            name, _, value = item.partition("=")
            (wanted[name],) = self._levels(name, [value]).values()
        settings = tuple(
            setting
            for setting, variant in self.by_setting.items()
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
