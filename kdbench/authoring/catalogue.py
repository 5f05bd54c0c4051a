"""The catalogue: what is declared about objectives, methods and sources, as values and as pages.

Every item has the keys name, kind, source, description, parameters, example and defined_at; all
but sources infinite_where; an objective group, aliases and grid; a preset and a method the
expression that they stand for; what does not train on the gold responses, sequences.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.registry import Registry
from kdbench.base.templates import render
from kdbench.variants.objective import (
    ALIASES,
    METHODS,
    NAMES,
    OBJECTIVES,
    PRESETS,
    SOURCES,
    Preset,
    Source,
)
from kdbench.variants.parameters import Choice, Flag, Inner, Parameter, Value
from kdbench.variants.select import expand
from kdbench.variants.variant import (
    DATASET,
    SourceVariant,
    Variant,
    load_objectives,
    parse,
    sequences_of,
    variant_of,
)

Facts = dict[str, Any]

TEXT = "objectives.md"
PICTURES = "gallery"
OBJECTIVE_KINDS = ("divergence", "labelled", "stateful")
SECTIONS = {
    "Objectives": OBJECTIVE_KINDS,
    "Named settings": ("preset",),
    "Methods": ("method",),
    "Sources of sequences": ("source",),
}


def all_facts() -> list[Facts]:
    """Of everything that is registered: objectives, presets, methods, sources."""
    load_objectives()
    return [
        *(_of_objective(variant_of(OBJECTIVES[name], {})) for name in OBJECTIVES),
        *(_of_preset(name, "preset", PRESETS) for name in PRESETS),
        *(_of_preset(name, "method", METHODS) for name in METHODS),
        *(_of_source(SOURCES[name]) for name in SOURCES),
    ]


def facts_of(name: str) -> Facts:
    """Of one objective, alias, preset, method, `@source` or variant such as `amid[alpha=3]`.

    Raises:
        UserError: there is nothing of that name.
    """
    load_objectives()
    if name in PRESETS:
        return _of_preset(name, "preset", PRESETS)
    if name in METHODS:
        return _of_preset(name, "method", METHODS)
    if is_source(name):
        return _of_source(SOURCES[name.removeprefix("@")])
    return _of_objective(parse(name))


def is_source(name: str) -> bool:
    """Whether a name, with or without its @, means a source of sequences."""
    return name.startswith("@") or (name in SOURCES and name not in NAMES)


def pictured(name: str) -> list[Variant]:
    """The variants that stand in the picture of a name: its grid, if it has one, or itself.

    Raises:
        UserError: there is no objective of that name; a source has no picture.
    """
    if is_source(name):
        raise UserError(
            f"{name} is a source of sequences: it changes where an objective is applied, not what "
            "it does there, so there is no picture of it"
        )
    return expand(name)


def page(item: Facts) -> str:
    """Everything about one item, as text for the console."""
    return render("authoring/objective.txt", item=item)


def text() -> str:
    """docs/objectives.md; equal for equal declarations."""
    items = all_facts()
    sections = {
        title: [_entry(item) for item in items if item["kind"] in kinds]
        for title, kinds in SECTIONS.items()
    }
    return render("authoring/objectives.md", sections=sections, kinds=OBJECTIVE_KINDS)


def write(folder: Path) -> None:
    """Writes the page and its pictures into a folder, and removes pictures of what is gone."""
    from kdbench.authoring.pictures import overview, picture

    plain = [variant for variant in expand("all") if variant.sequences == DATASET]
    pictures = {"overview.svg": overview(plain, "svg")}
    for item in all_facts():
        if item["kind"] != "source" and (name := f"{_shown(item).slug}.svg") not in pictures:
            pictures[name] = picture(pictured(_shown(item).name), "svg")
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for old in (folder / PICTURES).glob("*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, content in pictures.items():
        (folder / PICTURES / name).write_bytes(content)
    (folder / TEXT).write_text(text(), encoding="utf-8")


def stale(folder: Path) -> list[str]:
    """What in a folder differs from what `write` would write; of pictures, only the names."""
    page = folder / TEXT
    wanted = text()
    found = page.read_text(encoding="utf-8") if page.is_file() else ""
    linked = re.findall(rf"\]\(({PICTURES}/[^)]+)\)", wanted)
    missing = [name for name in dict.fromkeys(linked) if not (folder / name).is_file()]
    return [*([TEXT] if found != wanted else []), *missing]


def _entry(item: Facts) -> tuple[Facts, str, str]:
    """With the name of its objective and the path of its picture; a source has neither."""
    if item["kind"] == "source":
        return item, "", ""
    shown = _shown(item)
    return item, shown.objective.name, f"{PICTURES}/{shown.slug}.svg"


def _shown(item: Facts) -> Variant:
    """The objective of a method or a named setting, wherever its sequences come from."""
    return parse(item["name"]).drawn_from(DATASET)


def _of_objective(variant: Variant) -> Facts:
    objective = variant.objective
    return {
        "name": variant.name,
        "kind": objective.kind,
        "group": objective.group,
        "aliases": [alias for alias, target in ALIASES.items() if target == objective.name],
        "grid": {key: list(values) for key, values in objective.grid.items()},
        "source": objective.source,
        "example": _example(objective.name, objective.parameters),
        "defined_at": objective.defined_at,
        **_of_variant(variant),
    }


def _of_preset(name: str, kind: str, registry: Registry[Preset]) -> Facts:
    variant, preset = parse(name), registry[name]
    declared = {**variant.objective.parameters, **variant.sequences.source.parameters}
    return {
        "name": name,
        "kind": kind,
        "expression": preset.expression,
        "source": preset.source,
        "example": _example(name, declared) if kind == "method" else name,
        "defined_at": registry.defined_at(name),
        **_of_variant(variant),
    }


def _of_variant(variant: Variant) -> Facts:
    """What is said of everything that can be trained with."""
    infinite = variant.infinite_where()
    return {
        "description": variant.objective.description,
        "parameters": _parameters(variant.objective.parameters, variant.params),
        "infinite_where": None if infinite is None else sorted(infinite),
        **_sequences(variant.sequences),
    }


def _of_source(source: Source) -> Facts:
    return {
        "name": f"@{source.name}",
        "kind": "source",
        "parameters": _parameters(source.parameters, sequences_of(source, {}).params),
        "source": source.paper,
        "description": source.description,
        "example": _example(f"forward-kl@{source.name}", source.parameters),
        "defined_at": SOURCES.defined_at(source.name),
    }


def _sequences(variant: SourceVariant) -> Facts:
    if variant.name == DATASET.name:
        return {}
    facts = _of_source(variant.source)
    facts["parameters"] = _parameters(variant.source.parameters, variant.params)
    return {"sequences": {key: facts[key] for key in ("name", "description", "parameters")}}


def _parameters(
    declared: Mapping[str, Parameter], params: Mapping[str, Value]
) -> list[dict[str, str]]:
    """Name, default and range of each; its value only where that is not the default."""
    found = []
    for name, parameter in declared.items():
        default, value = parameter.write(parameter.default), parameter.write(params[name])
        facts = {"name": name, "default": default, "range": parameter.describe()}
        found.append(facts if value == default else {**facts, "value": value})
    return found


def _example(name: str, declared: Mapping[str, Parameter]) -> str:
    """A variant with one parameter changed; the bare name where there is none to change."""
    bare = parse(name)
    for key, parameter in declared.items():
        for value in _candidates(parameter):
            example = f"{name}[{key}={value}]"
            with suppress(UserError):  # out of its range, or refused with the other parameters
                if parse(example) != bare:
                    return example
    return name


def _candidates(parameter: Parameter) -> Iterable[str]:
    if isinstance(parameter, Choice):
        return parameter.options
    words = {Flag: ("true", "false"), Inner: ("reverse-kl", "forward-kl")}
    return words.get(type(parameter), ("0.5", "0.1", "0.9", "1", "2", "10", "100", "-1"))
