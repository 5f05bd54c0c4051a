"""From what stands after `--objectives` to variants: `all`, lists, globs, `name[key=value,...]`."""

import fnmatch
import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.registry import load_file
from kdbench.variants.objective import ALIASES, GROUPS, METHODS, OBJECTIVES, PRESETS
from kdbench.variants.parameters import split_expression, split_list
from kdbench.variants.variant import Variant, load_objectives, parse, split_source, variant_of


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


def expand(text: str) -> list[Variant]:
    """The variants that a list such as `sft,amid*,jsd[beta=0.9]@mixed` stands for, each once.

    `all` is every objective and method, `methods` the methods, `core` and `more` the groups of
    that name; a bare name whose objective declares a grid stands for the grid.

    Raises:
        UserError: see `parse`; also a glob that matches nothing, or an empty list.
    """
    variants = [variant for item in _items(text) for variant in _variants(item)]
    return list({variant.full_name: variant for variant in variants}.values())


def families(text: str) -> list[Family]:
    """The objectives of a list such as `expand` reads, each once and with its grid left open.

    Raises:
        UserError: see `expand`.
    """
    return list({family.label: family for family in map(_family, _items(text))}.values())


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
    for name in OBJECTIVES.keys() - before:
        OBJECTIVES[name].code  # noqa: B018 - now: the file may be edited while a run goes on


def _items(text: str) -> list[str]:
    """What stands in a list, and in place of a group or a glob the names that it stands for."""
    load_objectives()
    items = []
    for item in split_list(text):
        if item in GROUPS:
            if item != "methods":
                items += [name for name in OBJECTIVES if item in ("all", OBJECTIVES[name].group)]
            if item in ("all", "methods"):
                items += METHODS
        elif any(character in item for character in "*?") and "[" not in item:
            known = [*OBJECTIVES, *PRESETS, *METHODS]
            names = fnmatch.filter(known, item)
            if not names:
                raise UserError(f"no objective matches '{item}'; known: {', '.join(known)}")
            items += names
        else:
            items.append(item)
    if not items:
        raise UserError("no objectives given; for example --objectives all, or sft,forward-kl,amid")
    return items


def _variants(item: str) -> list[Variant]:
    """The variant of that name; the grid of a bare objective."""
    head, source = split_source(item)
    name = ALIASES.get(head, head)
    if name not in OBJECTIVES:
        return [parse(item)]
    grid = OBJECTIVES[name].grid
    variants = [
        variant_of(OBJECTIVES[name], dict(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
    ]
    return variants if source is None else [variant.drawn_from(source) for variant in variants]


def _family(item: str) -> Family:
    variant = parse(item)
    head, _ = split_source(item)
    name, given = split_expression(head)
    if name in PRESETS:
        given |= split_expression(PRESETS[name].expression)[1]
    label = "".join(item.split()) if given else variant.name
    return Family(label, variant, frozenset(given))
