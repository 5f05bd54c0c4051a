"""From what stands after `--objectives` to variants: `all`, lists, globs, `name[key=value,...]`."""

import fnmatch
import inspect
import itertools
from dataclasses import dataclass
from functools import cache
from inspect import isfunction
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.process import SETTINGS, changes, process_state
from kdbench.base.registry import load_file, plugin_module
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
        UserError: the file is missing, raises, registers no objective and makes no records, or sets
            something for the whole process, which every trial would run under.
    """
    load_objectives()
    before, state = {*OBJECTIVES, *PRESETS, *METHODS}, process_state()
    load_file(path)
    changed = [name for name in changes(state, process_state()) if name.startswith(SETTINGS)]
    if changed:
        raise UserError(
            f"plugin {path} changes {', '.join(changed)} for the whole process when it is imported,"
            " and the other objectives would run so too; do it for the objective's own tensors"
        )
    if {*OBJECTIVES, *PRESETS, *METHODS} == before and not _makes_records(path):
        raise UserError(
            f"plugin {path} registers no objective; decorate a function with @divergence"
        )
    for name in OBJECTIVES.keys() - before:
        OBJECTIVES[name].code  # noqa: B018 - now: the file may be edited while a run goes on


def _makes_records(path: Path) -> bool:
    """Whether a plugin has a function that a suite's `generator` may name: one with a seed."""
    own = [] if (module := plugin_module(path.stem)) is None else vars(module).values()
    return any("seed" in inspect.signature(each).parameters for each in filter(isfunction, own))


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
