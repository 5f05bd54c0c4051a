"""docs/objectives.md and its pictures, from the registry."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdbench.authoring.facts import Facts, all_facts, infinities, pictured
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, Variant, parse

TEXT = "objectives.md"
PICTURES = "gallery"

INTRODUCTION = """\
# The objectives

Made from the registry by `python -m kdbench.authoring docs`; the tests compare the two. The same
for one of them, or for a variant or a plugin, is `kdbench objectives NAME --plot FILE.svg`.

p is the teacher's distribution over the next token, q the student's. A value is per token, in nats
where it is an entropy; mixtures are weighted by the teacher (`teacher_weight`).

## How to read the pictures

The vocabulary is 41 ids in a row, and the teacher has two modes. **Left**: what one step of
gradient descent adds to each logit of the student shown above it, scaled so that the absolute
values sum to 1; the legend has the sum itself, the size, which a learning rate makes up for.
**Right**: the student that descent ends with where the student is too small for its teacher, a
single Gaussian with a mean and a width: it covers both modes or seeks one. Of three starts (on
each mode, and wide in the middle) the end with the least value is shown. Labels are drawn from
the teacher. Forward and reverse KL are in every picture. Where the sequences come from does not
show here: a method has the picture of its objective.

![Mean and width of the student that each objective ends with](gallery/overview.svg)
"""

OBJECTIVE_KINDS = ("divergence", "labelled", "stateful")
SECTIONS = {
    "Objectives": OBJECTIVE_KINDS,
    "Named settings": ("preset",),
    "Methods": ("method",),
    "Sources of sequences": ("source",),
}


def text() -> str:
    """The page; equal for equal declarations."""
    items = all_facts()
    parts = [INTRODUCTION]
    for title, kinds in SECTIONS.items():
        shown = [item for item in items if item["kind"] in kinds]
        names = [item["name"] for item in shown]
        links = (f"[{name}](#{name.removeprefix('@')})" for name in names)
        parts += [f"## {title}\n", ", ".join(links) + ".\n"]
        parts += ["\n".join(_section(item)) for item in shown]
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Writes the page and its pictures into a folder, and removes pictures of what is gone."""
    from kdbench.authoring.draw import overview, picture

    plain = [variant for variant in expand("all") if variant.sequences == DATASET]
    pictures = {"overview.svg": overview(plain, "svg")}
    for item in all_facts():
        if item["kind"] != "source" and (name := _picture(item)) not in pictures:
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


def _shown(item: Facts) -> Variant:
    """The objective of a method or a named setting, wherever its sequences come from."""
    return parse(item["name"]).drawn_from(DATASET)


def _picture(item: Facts) -> str:
    return f"{_shown(item).slug}.svg"


def _section(item: Facts) -> Iterator[str]:
    yield f"### {item['name']}\n"
    if "expression" in item:
        objective = _shown(item).objective.name
        formula = item["description"].split("\n\n")[0]
        yield f"`{item['expression']}`\n"
        yield f"Objective: [{objective}](#{objective}). {formula}\n"
    else:
        yield f"{item['description']}\n"
    if sequences := item.get("sequences"):
        yield f"Sequences: `{sequences['name']}`. {sequences['description']}\n"
    parameters = [*item["parameters"], *(sequences["parameters"] if sequences else [])]
    if parameters:
        yield from _table(parameters)
    yield from (f"* {line}" for line in _lines(item))
    if item["kind"] != "source":
        yield f"\n![{item['name']}]({PICTURES}/{_picture(item)})"
    yield ""


def _table(parameters: Iterable[dict[str, str]]) -> Iterator[str]:
    yield "| parameter | value | range |\n|---|---|---|"
    for item in parameters:
        legal = item["range"].replace("|", "\\|")
        yield f"| `{item['name']}` | {item.get('value', item['default'])} | {legal} |"
    yield ""


def _lines(item: Facts) -> Iterator[str]:
    if item["source"]:
        yield f"source: {item['source']}"
    if item["kind"] in OBJECTIVE_KINDS:
        yield f"kind: {item['kind']}; group: {item['group']}"
    if item.get("aliases"):
        yield f"also called {', '.join(item['aliases'])}"
    for name, values in item.get("grid", {}).items():
        yield f"the bare name stands for {name} in {', '.join(f'{value:g}' for value in values)}"
    if "infinite_where" in item:
        yield infinities(item)
    yield f"for example `--objectives {item['example']}`"
