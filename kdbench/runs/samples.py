"""The prompts and references of a run's evaluation sets, kept in its folder for its pages."""

from dataclasses import dataclass
from pathlib import Path

from kdbench.base import store
from kdbench.runs.folder import Run


@dataclass(frozen=True)
class Sample:
    """What a student was asked, and the answers that count as right."""

    instruction: str
    input: str
    references: tuple[str, ...]


def read_samples(run: Run, set_name: str) -> list[Sample]:
    """The samples of one set in their order; [] where the run's folder does not hold them."""
    return [
        Sample(
            instruction=row["text"][0], input=row["text"][1], references=tuple(row["references"])
        )
        for row in store.read_jsonl(samples_file(run, set_name))
    ]


def samples_file(run: Run, set_name: str) -> Path:
    """Where the samples of one set lie."""
    return run.path / "samples" / f"{set_name}.jsonl"
