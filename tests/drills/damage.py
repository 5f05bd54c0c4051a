"""A file that kdbench wrote is damaged between two commands.

What has to hold: the next command ends with the results of an undamaged one, or names a file, says
what to do, and loses nothing. It never ends well with other results, and never in a traceback.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.drills.scene import EXTENDED, Outcome, Scene

Damage = Callable[[random.Random, bytes], bytes]


def flipped(chance: random.Random, content: bytes) -> bytes:
    """One bit of one byte."""
    if not content:
        return b"\0"
    place = chance.randrange(len(content))
    changed = bytes([content[place] ^ (1 << chance.randrange(8))])
    return content[:place] + changed + content[place + 1 :]


def truncated(chance: random.Random, content: bytes) -> bytes:
    """The beginning."""
    return content[: chance.randrange(max(len(content), 1))]


def html(chance: random.Random, content: bytes) -> bytes:
    """What a proxy answers in the place of a file."""
    return b"<!doctype html><title>502</title>\n"


def empty_list(chance: random.Random, content: bytes) -> bytes:
    """JSON of another shape."""
    return b"[]\n"


DAMAGES: tuple[Damage, ...] = (flipped, flipped, flipped, truncated, html, empty_list)


@dataclass(frozen=True)
class Tried:
    """One drill: what was damaged and what came of it; `fault` is empty where all held."""

    what: str
    outcome: str
    fault: str


def damage_one(
    scene: Scene, whole: Outcome, work: Path, seed: int, kinds: tuple[str, ...] = ("",)
) -> Tried:
    """Damages one file of a copy of a finished run, and extends the run.

    Args:
        scene: the finished run.
        whole: what the extension comes to where nothing is damaged.
        work: gets the copy.
        seed: of the choice.
        kinds: only files whose path holds one of these texts.
    """
    chance = random.Random(seed)
    shutil.rmtree(work, ignore_errors=True)
    copy = scene.copy(work)
    files = [path for path in copy.files() if any(kind in str(path) for kind in kinds)]
    path, damage = chance.choice(files), chance.choice(DAMAGES)
    before, kept = copy.results(), path.read_bytes()
    path.write_bytes(damage(chance, kept))
    name = f"{damage.__name__} {path.relative_to(copy.path)}"
    ended = copy.command(*EXTENDED)
    if "Traceback" in ended.text:
        return Tried(name, "traceback", ended.text[-2000:])
    if ended.code == 2:
        if "Error: " not in ended.text:
            return Tried(name, "exit 2", f"no message: {ended.text}")
        lost = [one for one in before if one not in str(path) and not (copy.run / one).exists()]
        if lost and "removed" not in ended.text:
            return Tried(name, "exit 2", f"lost {lost}")
        again = copy.command(*EXTENDED)
        if again.code == 0 and again.results != whole.results:
            return Tried(name, "refused, then other results", again.text[-2000:])
        return Tried(name, "named" if again.code == 2 else "named, made again", "")
    if ended.code != 0:
        return Tried(name, f"exit {ended.code}", ended.text[-2000:])
    if ended.results != whole.results:
        other = [one for one in whole.results if ended.results.get(one) != whole.results[one]]
        return Tried(name, "other results", f"{other}\n{ended.text[-2000:]}")
    return Tried(name, "made again" if "made again" in ended.text else "the same results", "")
