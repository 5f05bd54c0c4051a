"""From what stands after `--objectives` to variants: `all`, lists, globs, `name[key=value,...]`."""

import fnmatch
import itertools
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.registry import load_entry_points, load_file, unknown
from kdbench.variants.objective import (
    ALIASES,
    GROUPS,
    LR,
    METHODS,
    OBJECTIVES,
    PRESETS,
    Objective,
    Variant,
    learning_rate,
)
from kdbench.variants.parameters import Inner
from kdbench.variants.sequences import DATASET, SOURCES, SourceVariant


@dataclass(frozen=True)
class Family:
    """An objective as it was asked for: what is written is fixed, the rest may be tuned.

    Attributes:
        label: what it is called: its name, or the expression where parameters are written.
        variant: with its defaults where nothing is written.
        fixed: the names of the parameters that are written.
    """

    label: str
    variant: Variant
    fixed: frozenset[str]


def parse(expression: str) -> Variant:
    """One variant, from its name; parameters that are not given have their defaults.

    Raises:
        UserError: unknown name, parameter or source, broken brackets, a value out of range, or an
            objective and a source that do not go together.
    """
    load_objectives()
    head, source = _split_source(expression)
    name, given = _split_expression(head)
    if name in METHODS:
        if source is not None:
            raise UserError(
                f"'{expression}': {name} has a source: it is {METHODS[name].expression}"
            )
        return _method(name, given)
    if name in PRESETS:
        if given.keys() - {LR}:
            raise UserError(
                f"the preset {name} takes no parameters; write {PRESETS[name].expression}"
            )
        variant = replace(parse(PRESETS[name].expression), lr=learning_rate(name, given))
    else:
        variant = _objective(name).variant(given)
    return variant if source is None else variant.drawn_from(source)


def expand(text: str) -> list[Variant]:
    """The variants that a list such as `sft,amid*,jsd[beta=0.9]@mixed` stands for, each once.

    `all` is every objective and method, `methods` the methods, `core` and `more` the groups of
    that name; a bare name whose objective declares a grid stands for the grid.

    Raises:
        UserError: see `parse`; also a glob that matches nothing, or an empty list.
    """
    load_objectives()
    found = [variant for item in split_list(text) for variant in _expand_item(item)]
    if not found:
        raise UserError("no objectives given; for example --objectives all, or sft,forward-kl,amid")
    return list({variant.full_name: variant for variant in found}.values())


def families(text: str) -> list[Family]:
    """The objectives of a list such as `expand` reads, each once and with its grid left open.

    Raises:
        UserError: see `expand`.
    """
    load_objectives()
    found = []
    for item in split_list(text):
        names = _named(item)
        found += [_family(name) for name in ([item] if names is None else names)]
    if not found:
        raise UserError("no objectives given; for example --objectives all, or sft,forward-kl,amid")
    return list({family.label: family for family in found}.values())


def method_of(variant: Variant) -> str | None:
    """The name of the published method that a variant is, if it is one."""
    if variant.source.source is DATASET.source:
        return None
    full = replace(variant, lr=None).full_name
    return next((name for name in METHODS if _method(name, {}).full_name == full), None)


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
    before = {*OBJECTIVES, *PRESETS, *METHODS}
    load_file(path)
    if {*OBJECTIVES, *PRESETS, *METHODS} == before:
        raise UserError(
            f"plugin {path} registers no objective; decorate a function with @divergence"
        )


def _expand_item(item: str) -> list[Variant]:
    if (names := _named(item)) is not None:
        return [variant for name in names for variant in _expand_item(name)]
    head, source = _split_source(item)
    name = ALIASES.get(head, head)
    if name not in OBJECTIVES:
        return [parse(item)]
    variants = _grid(OBJECTIVES[name])
    return variants if source is None else [variant.drawn_from(source) for variant in variants]


def _named(item: str) -> list[str] | None:
    """The names that a group or a glob stands for; None for anything else."""
    if item == "methods":
        return list(METHODS)
    if item in GROUPS:
        names = [name for name in OBJECTIVES if item in ("all", OBJECTIVES[name].group)]
        return names + (list(METHODS) if item == "all" else [])
    if any(character in item for character in "*?") and "[" not in item:
        known = [*OBJECTIVES, *PRESETS, *METHODS]
        names = fnmatch.filter(known, item)
        if not names:
            raise UserError(f"no objective matches '{item}'; known: {', '.join(known)}")
        return names
    return None


def _family(item: str) -> Family:
    variant = parse(item)
    head, _ = _split_source(item)
    name, given = _split_expression(head)
    if name in PRESETS:
        given |= _split_expression(PRESETS[name].expression)[1]
    label = "".join(item.split()) if given else variant.name
    return Family(label, variant, frozenset(given))


def _method(name: str, given: dict[str, str]) -> Variant:
    """A method, some of its objective's or its source's parameters given."""
    head, source_text = _split_at(METHODS[name].expression)
    objective_name, objective_params = _split_expression(head)
    source_name, source_params = _split_expression(source_text or DATASET.source.name)
    objective, source = _objective(objective_name), SOURCES[source_name]
    for key, value in given.items():
        if key in objective.parameters or key == LR:
            objective_params[key] = value
        elif key in source.parameters:
            source_params[key] = value
        else:
            known = [*objective.parameters, *source.parameters, LR]
            raise UserError(unknown(f"parameter of {name}", key, known))
    return objective.variant(objective_params).drawn_from(source.variant(source_params))


def _split_source(expression: str) -> tuple[str, SourceVariant | None]:
    head, text = _split_at(expression)
    if text is None:
        return head, None
    name, given = _split_expression(text)
    return head, SOURCES[name].variant(given)


def _split_at(expression: str) -> tuple[str, str | None]:
    """What stands before and behind the one `@` outside brackets, if there is one."""
    depth = 0
    for index, character in enumerate(expression):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "@" and depth == 0:
            return expression[:index].strip(), expression[index + 1 :].strip()
    return expression, None


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
        known = [*OBJECTIVES, *PRESETS, *METHODS, *ALIASES, *GROUPS]
        raise UserError(unknown("objective", name, known))
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
    if variant.lr is not None:
        raise UserError(
            f"{expression}: {LR} is the learning rate of a whole variant; write it outside, after "
            "the parameters of the objective that holds this one"
        )
    if not _is_plain(variant.objective) or variant.source is not DATASET:
        usable = [name for name in OBJECTIVES if _is_plain(OBJECTIVES[name])]
        raise UserError(
            f"{expression} cannot stand inside another objective: only plain divergences can: "
            f"{', '.join(usable)}"
        )
    return variant


def _is_plain(objective: Objective) -> bool:
    nested = any(isinstance(item, Inner) for item in objective.parameters.values())
    return objective.kind == "divergence" and not nested
