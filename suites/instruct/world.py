"""The small world that the suite's records speak of: names, pools of values, and who prefers what.

A first name tells the kind of animal, a surname the home and the work, so a name that was never
seen can still be answered for. Nothing is certain: every preference is a distribution, because
objectives differ in what they make of several right answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TypeVar

from kdbench.base.seeds import derive

T = TypeVar("T")

FACT = (0.6, 0.26, 0.14)
"""Probabilities of a fact's three values, and of the three ways to word an answer."""
LIST = (0.35, 0.25, 0.2, 0.12, 0.08)
"""Probabilities of the five values that a list draws from, without repetition."""

# fmt: off
FIRST_NAMES = (
    "Ada", "Bruno", "Clara", "Edgar", "Flora", "Greta", "Hugo", "Ivo",
    "Jonas", "Lena", "Mira", "Nora", "Otto", "Petra", "Silas", "Vera",
)
SURNAMES = (
    "Ash", "Brook", "Cole", "Dale", "Fern", "Glen", "Hill", "Lake",
    "Marsh", "North", "Pine", "Reed", "Stone", "Thorn", "Vale", "Wood",
)

POOLS: dict[str, tuple[str, ...]] = {
    "kind": ("fox", "bear", "hare", "badger", "heron", "goat", "wolf", "mouse"),
    "season": ("spring", "summer", "autumn", "winter"),
    "home": (
        "the old mill", "the harbour", "the forest", "the green valley", "the castle",
        "the small town", "the village", "the lighthouse",
    ),
    "job": ("baker", "sailor", "painter", "farmer", "teacher", "miner", "singer", "tailor"),
    "food": (
        "fresh bread", "red berries", "onion soup", "grilled fish", "apple cake", "soft cheese",
        "sweet corn", "roast nuts",
    ),
    "colour": ("red", "blue", "green", "white", "black", "gold", "grey", "pink"),
    "act": (
        "mend nets", "count stars", "pick flowers", "paint boats", "tell tales", "plant trees",
        "ring bells", "climb rocks",
    ),
    "gift": (
        "a silk scarf", "a brass lamp", "a wooden spoon", "a clay pot", "a warm coat",
        "a glass bowl", "a silver key", "a paper kite",
    ),
    "game": ("chess", "cards", "darts", "tag", "dice", "hide and seek", "marbles", "football"),
    "trait": ("calm", "bold", "shy", "clever", "proud", "gentle"),
    "reason": (
        "the days are long", "old friends meet there", "the wind is gentle", "there is much to eat",
        "the nights are quiet", "the music never stops",
    ),
}
# fmt: on

FIELDS: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "food": ("food", FACT, ("kind",)),
    "game": ("game", FACT, ("kind",)),
    "trait": ("trait", FACT, ("kind",)),
    "home": ("home", FACT, ("surname",)),
    "job": ("job", FACT, ("surname",)),
    "colour": ("colour", FACT, ("surname", "kind", "job")),
    "act": ("act", FACT, ("surname", "job", "kind")),
    "gift": ("gift", FACT, ("kind", "job")),
    "reason": ("reason", FACT, ("season", "kind")),
    "foods": ("food", LIST, ("kind", "job", "season")),
    "acts": ("act", LIST, ("season", "job", "kind")),
    "gifts": ("gift", LIST, ("job", "kind")),
}
"""Field of an answer: the pool of its values, their probabilities, what it depends on.

It depends on the first of the sources that the record knows.
"""

SHARES = {"train": 0.7, "dev": 0.08, "eval": 0.22}
"""How names, and the combinations of tasks without a name, are divided."""


@dataclass(frozen=True)
class World:
    """Preferences and the division of names; a function of the seed alone.

    Attributes:
        kinds: first name -> kind of animal.
        preferences: (field, source, value of the source) -> the field's values, likeliest first.
        names: split -> its (first name, surname) pairs; every first name stands in every split.
    """

    kinds: Mapping[str, str]
    preferences: Mapping[tuple[str, str, str], tuple[str, ...]]
    names: Mapping[str, tuple[tuple[str, str], ...]]


def make_world(seed: int) -> World:
    """Draws the world: three (facts) or five (lists) preferred values for every source."""
    kinds = shuffled(POOLS["kind"] * 2, Random(derive("instruct-kinds", seed)))
    sources = {"surname": SURNAMES, **POOLS}
    preferences = {}
    for field, (pool, weights, depends_on) in FIELDS.items():
        for source in depends_on:
            rng = Random(derive("instruct-preferences", seed, field, source))
            likeliest = shuffled(POOLS[pool], rng)
            for i, value in enumerate(sources[source]):
                first = likeliest[i % len(likeliest)]
                others = [other for other in shuffled(POOLS[pool], rng) if other != first]
                preferences[field, source, value] = (first, *others)[: len(weights)]
    names: dict[str, list[tuple[str, str]]] = {split: [] for split in SHARES}
    for first in FIRST_NAMES:
        pairs = list(product((first,), SURNAMES))
        for split, part in divide(pairs, Random(derive("instruct-names", seed, first))).items():
            names[split] += part
    return World(
        dict(zip(FIRST_NAMES, kinds, strict=True)),
        preferences,
        {split: tuple(pairs) for split, pairs in names.items()},
    )


class Facts(dict[str, str]):
    """What one record says, for `str.format_map`: a field is drawn when a template first uses it.

    A digit at a field's end (`gifts2`) asks for one more value of the same field, different from
    those before. With `uniform`, every value of a pool is as likely as any other: a passage then
    says what nobody could know without reading it.
    """

    def __init__(
        self, world: World, given: Mapping[str, str], rng: Random, *, uniform: bool = False
    ) -> None:
        super().__init__(given)
        self.world, self.rng, self.uniform = world, rng, uniform

    def copy(self) -> "Facts":
        """The same knowledge so far; what it leaves open is drawn anew."""
        return Facts(self.world, self, self.rng, uniform=self.uniform)

    def __missing__(self, field: str) -> str:
        base = _base(field)
        pool, weights, depends_on = FIELDS[base]
        if self.uniform:
            values, weights = POOLS[pool], (1.0,) * len(POOLS[pool])
        else:
            source = next(source for source in depends_on if source in self)
            values = self.world.preferences[base, source, self[source]]
        told = {value for name, value in self.items() if _base(name) == base}
        left = {v: w for v, w in zip(values, weights, strict=True) if v not in told}
        self[field] = pick(self.rng, list(left), list(left.values()))
        return self[field]


def _base(field: str) -> str:
    return field.rstrip("123456789")


def divide(items: Sequence[T], rng: Random) -> dict[str, list[T]]:
    """Shuffles and divides items among the splits by their shares, at least one to each."""
    order = shuffled(items, rng)
    n_dev = max(1, round(SHARES["dev"] * len(order)))
    n_eval = max(1, round(SHARES["eval"] * len(order)))
    return {
        "dev": order[:n_dev],
        "eval": order[n_dev : n_dev + n_eval],
        "train": order[n_dev + n_eval :],
    }


def pick(rng: Random, values: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of the values, by weight."""
    return rng.choices(values, weights)[0]


def shuffled(items: Sequence[T], rng: Random) -> list[T]:
    """A shuffled copy, drawn with `random()` only: the one stream Python promises to keep."""
    keys = [rng.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]
