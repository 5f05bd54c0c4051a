"""From the world and its tasks to the suite's six JSONL files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from random import Random

from kdbench.base.seeds import derive

from .asking import FACTS, PAIRS
from .reading import READING
from .task import CATEGORIES, Exercise
from .world import FACT, POOLS, Facts, World, divide, make_world, pick
from .writing import IDEAS, LONG

TASKS = (*FACTS, *READING, *IDEAS, *LONG, *PAIRS)

Record = dict[str, str | list[str]]
Divided = Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]

TRAINING_SIZES = {"teacher": 20_000, "train": 800}
HELD_OUT_SIZES = {"dev": 200, "dolly": 200, "self-inst": 200, "vicuna": 100}
REFERENCES = 3
"""Answers drawn for a held-out item; equal ones are merged."""


def generate(folder: Path, *, seed: int = 0) -> None:
    """Writes the suite's files into `folder`, the same bytes for the same seed.

    `teacher.jsonl` and `train.jsonl` hold records {instruction, input, output, category};
    in `dev.jsonl`, `dolly.jsonl`, `self-inst.jsonl` and `vicuna.jsonl` the output is a list of
    different references. No (instruction, input) of a held-out file stands in any other file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in make_sets(seed).items():
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="ascii")


def make_sets(seed: int) -> dict[str, list[Record]]:
    """All sets by name. Training sets may repeat prompts, held-out sets never do."""
    world = make_world(seed)
    divided = _divide_combinations(seed)
    sets: dict[str, list[Record]] = {}
    prompts: set[tuple[str, str]] = set()
    for name, size in {**TRAINING_SIZES, **HELD_OUT_SIZES}.items():
        rng = Random(derive("instruct-set", seed, name))
        held_out = name in HELD_OUT_SIZES
        split = "train" if not held_out else "dev" if name == "dev" else "eval"
        drawn = _items(name, split, world, divided[split], rng)
        sets[name] = []
        for task, instruction, passage, facts in drawn:
            if len(sets[name]) == size:
                break
            if held_out and (instruction, passage) in prompts:
                continue
            prompts.add((instruction, passage))
            answers = [_answer(task, facts, rng) for _ in range(REFERENCES if held_out else 1)]
            sets[name].append(
                {
                    "instruction": instruction,
                    "input": passage,
                    "output": list(dict.fromkeys(answers)) if held_out else answers[0],
                    "category": task.category,
                }
            )
    return sets


def _items(
    name: str, split: str, world: World, divided: Divided, rng: Random
) -> Iterator[tuple[Exercise, str, str, Facts]]:
    """Endless items of a set, its groups of tasks in turn: the task, its prompt, what is known."""
    for tasks in cycle(_groups(name)):
        task = pick(rng, tasks, [task.weight for task in tasks])
        given = _combination(task.slots, split, world, divided, rng)
        facts = Facts(world, given, rng, uniform=bool(task.passages))
        passage = pick(rng, task.passages).format_map(facts) if task.passages else ""
        phrasings = task.unseen if name == "self-inst" else task.asked
        yield task, pick(rng, phrasings).format_map(facts), passage, facts


def _groups(name: str) -> list[list[Exercise]]:
    """The tasks of a set: one group a category, and for `self-inst` one in three recombined."""
    if name == "self-inst":
        tasks = [task for task in TASKS if task.unseen and task.asked]
        recombined = [task for task in TASKS if not task.asked]
    else:
        tasks = [task for task in TASKS if task.asked]
        recombined = []
    if name in ("dolly", "vicuna"):
        tasks = [task for task in tasks if (task in LONG) == (name == "vicuna")]
    groups = [[task for task in tasks if task.category == category] for category in CATEGORIES]
    groups = [group for group in groups if group]
    return [*groups, *([recombined] * (len(groups) // 2) if recombined else [])]


def _combination(
    slots: tuple[str, ...], split: str, world: World, divided: Divided, rng: Random
) -> dict[str, str]:
    """Values for the slots, out of the split: a name of its own, or a combination of its own."""
    if "person" not in slots:
        return dict(zip(slots, pick(rng, divided[slots]), strict=True))
    first, surname = pick(rng, world.names[split])
    given = {
        "person": f"{first} {surname}",
        "first": first,
        "surname": surname,
        "kind": world.kinds[first],
    }
    for slot in slots:
        if slot == "other":
            given[slot] = " ".join(
                pick(rng, [name for name in world.names[split] if name != (first, surname)])
            )
        elif slot != "person":
            given[slot] = pick(rng, POOLS[slot])
    return given


def _divide_combinations(seed: int) -> dict[str, dict[tuple[str, ...], list[tuple[str, ...]]]]:
    """For every set of slots without a person: its combinations, divided among the splits."""
    divided: dict[str, dict[tuple[str, ...], list[tuple[str, ...]]]] = {}
    for slots in sorted({task.slots for task in TASKS if "person" not in task.slots}):
        combinations = list(product(*(POOLS[slot] for slot in slots)))
        rng = Random(derive("instruct-combinations", seed, *slots))
        for split, part in divide(combinations, rng).items():
            divided.setdefault(split, {})[slots] = part
    return divided


def _answer(task: Exercise, facts: Facts, rng: Random) -> str:
    """One fresh answer: a wording, and what the prompt leaves open."""
    return pick(rng, task.answers, FACT).format_map(facts.copy())
