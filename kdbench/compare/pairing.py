"""How the differences of two runs can be paired: by training seed, by prompt, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.base.store import file_digest
from kdbench.compare.sides import BoardSide, RunSide
from kdbench.config.identity import other_batches


@dataclass(frozen=True)
class Pairing:
    """What two runs have in common that their differences can be taken over.

    Attributes:
        samples: per common set, whether both runs asked the same prompts.
        unseeded: why training seeds cannot be paired; "" where they can.
    """

    samples: dict[str, bool]
    unseeded: str


def pair(first: RunSide | BoardSide, other: RunSide | BoardSide, sets: Sequence[str]) -> Pairing:
    """Finds out how the differences of two runs may be paired."""
    return Pairing({name: _same_samples(first, other, name) for name in sets}, _why(first, other))


def same_answers(
    first: RunSide | BoardSide, other: RunSide | BoardSide, variant: str
) -> bool | None:
    """Whether all answers of the common seeds are equal, byte for byte; None without answers."""
    if isinstance(first, BoardSide) or isinstance(other, BoardSide):
        return None
    seen = False
    for seed in set(first.trials[variant]) & set(other.trials[variant]):
        folders = [side.trials[variant][seed].files.path / "generations" for side in (first, other)]
        files = [sorted(path.name for path in folder.glob("*.jsonl")) for folder in folders]
        if not all(files):
            continue
        if files[0] != files[1]:
            return False
        for name in files[0]:
            seen = True
            if file_digest(folders[0] / name) != file_digest(folders[1] / name):
                return False
    return True if seen else None


def _same_samples(first: RunSide | BoardSide, other: RunSide | BoardSide, name: str) -> bool:
    splits = [side.shared.suite.data.evaluation.get(name) for side in (first, other)]
    whole = first.shared.data_digest == other.shared.data_digest
    if whole and splits[0] == splits[1]:
        return True
    paths = [side.run.path / "samples" / f"{name}.jsonl" for side in (first, other)]
    return all(path.exists() for path in paths) and len(set(map(file_digest, paths))) == 1


def _why(first: RunSide | BoardSide, other: RunSide | BoardSide) -> str:
    """The first reason why a training seed does not stand for the same thing in both runs."""
    if isinstance(first, BoardSide) or isinstance(other, BoardSide):
        return "a published board holds no figures of single seeds"
    if field := other_batches(first.shared, other.shared):
        if field == "data_digest":
            return "the data differ"
        return f"{field} differs, and with it the order of the data"
    known = [side.facts["weights"].get("initial student") for side in (first, other)]
    if not all(isinstance(digest, str) for digest in known):
        return "provenance.json does not say which one initial student it was"
    return "" if known[0] == known[1] else "the initial students differ"
