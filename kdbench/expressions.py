"""From what stands after `--objectives` to variants: `all`, lists, globs, `name[key=value,...]`."""

import fnmatch
import itertools
from functools import cache
from pathlib import Path

from kdbench.errors import UserError
from kdbench.objective import ALIASES, OBJECTIVES, PRESETS, Objective, Variant
from kdbench.parameters import Inner
from kdbench.registry import load_entry_points, load_file, unknown

GROUPS = ("all", "core")


def parse(expression: str) -> Variant:
    """One variant, from its name; parameters that are not given have their defaults.

    Raises:
        UserError: unknown name or parameter, broken brackets, or a value out of range.
    """
    load_objectives()
    name, given = _split_expression(expression)
    if name in PRESETS:
        if given:
            raise UserError(
                f"the preset {name} takes no parameters; write {PRESETS[name].expression}"
            )
        return parse(PRESETS[name].expression)
    return _objective(name).variant(given)


def expand(text: str) -> list[Variant]:
    """The variants that a list such as `sft,amid*,jsd[beta=0.9]` stands for, each once.

    `all` is every objective, `core` the group of that name; a bare name whose objective declares a
    grid stands for the grid.

    Raises:
        UserError: see `parse`; also a glob that matches nothing, or an empty list.
    """
    load_objectives()
    found = [variant for item in split_list(text) for variant in _expand_item(item)]
    if not found:
        raise UserError("no objectives given; for example --objectives all, or sft,forward-kl,amid")
    return list({variant.full_name: variant for variant in found}.values())


def inner(expression: str) -> Inner:
    """Declares a parameter that is itself a registered divergence."""
    return Inner(expression, _resolve_inner)


def split_list(text: str) -> list[str]:
    """Splits at the commas that stand outside brackets.

    Raises:
        UserError: the brackets do not match.
    """
    parts, depth, current = [], 0, ""
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    if depth != 0:
        raise UserError(f"'{text}': the brackets do not match")
    return [part.strip() for part in [*parts, current] if part.strip()]


@cache
def load_objectives() -> None:
    """Imports every installed objective, once."""
    load_entry_points("kdbench.objectives")


@cache
def load_plugin(path: Path) -> None:
    """Imports a plugin file, after the installed objectives, so that a clash names the plugin.

    Raises:
        UserError: the file is missing, raises, or registers no objective.
    """
    load_objectives()
    before = {*OBJECTIVES, *PRESETS}
    load_file(path)
    if {*OBJECTIVES, *PRESETS} == before:
        raise UserError(
            f"plugin {path} registers no objective; decorate a function with @divergence"
        )


def _expand_item(item: str) -> list[Variant]:
    if item in GROUPS:
        return [
            variant
            for name in OBJECTIVES
            if item == "all" or OBJECTIVES[name].group == item
            for variant in _grid(OBJECTIVES[name])
        ]
    if any(character in item for character in "*?") and "[" not in item:
        names = fnmatch.filter([*OBJECTIVES, *PRESETS], item)
        if not names:
            raise UserError(f"no objective matches '{item}'; known: {', '.join(OBJECTIVES)}")
        return [variant for name in names for variant in _expand_item(name)]
    name = ALIASES.get(item, item)
    return _grid(OBJECTIVES[name]) if name in OBJECTIVES else [parse(item)]


def _grid(objective: Objective) -> list[Variant]:
    names = list(objective.grid)
    return [
        objective.variant(dict(zip(names, values, strict=True)))
        for values in itertools.product(*objective.grid.values())
    ]


def _objective(name: str) -> Objective:
    name = ALIASES.get(name, name)
    if name in GROUPS:
        raise UserError(f"'{name}' stands for several objectives, and here one is needed")
    if name not in OBJECTIVES:
        raise UserError(unknown("objective", name, [*OBJECTIVES, *PRESETS, *ALIASES, *GROUPS]))
    return OBJECTIVES[name]


def _split_expression(expression: str) -> tuple[str, dict[str, str]]:
    name, bracket, rest = expression.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise UserError(f"'{expression}': a variant is written name[parameter=value,...]")
    given: dict[str, str] = {}
    for item in split_list(rest[:-1]):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not value.strip():
            raise UserError(f"'{expression}': '{item}' is not parameter=value")
        if key in given:
            raise UserError(f"'{expression}': {key} is given twice")
        given[key] = value.strip()
    return name.strip(), given


def _resolve_inner(expression: str) -> Variant:
    variant = parse(expression)
    if not _is_plain(variant.objective):
        usable = [name for name in OBJECTIVES if _is_plain(OBJECTIVES[name])]
        raise UserError(
            f"{expression} cannot stand inside another objective: only plain divergences can: "
            f"{', '.join(usable)}"
        )
    return variant


def _is_plain(objective: Objective) -> bool:
    nested = any(isinstance(item, Inner) for item in objective.parameters.values())
    return objective.kind == "divergence" and not nested
