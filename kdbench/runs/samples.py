"""The prompts and references of a run's evaluation sets, kept in its folder for its pages."""

from dataclasses import dataclass
from pathlib import Path

from kdbench.base import store
from kdbench.pipeline.artifacts import Artifacts
from kdbench.runs.folder import Run


@dataclass(frozen=True)
class Sample:
    """What a student was asked, and the answers that count as right."""

    instruction: str
    input: str
    references: tuple[str, ...]


def write_samples(run: Run, artifacts: Artifacts) -> None:
    """Writes `samples/<set>.jsonl` of every evaluation set that has none yet.

    The folder of a run is local; `kdbench publish` leaves out the records of the sets that are
    marked `redistribute: false`.
    """
    for name, split in artifacts.suite.data.evaluation.items():
        path = _path(run, name)
        if not path.exists():
            records = artifacts.records(split)
            store.write_jsonl(
                path,
                (
                    {"text": [record.instruction, record.input], "references": record.outputs}
                    for record in records
                ),
            )


def read_samples(run: Run, set_name: str) -> list[Sample]:
    """The samples of one set in their order; [] where the run's folder does not hold them."""
    return [
        Sample(
            instruction=row["text"][0], input=row["text"][1], references=tuple(row["references"])
        )
        for row in store.read_jsonl(_path(run, set_name))
    ]


def _path(run: Run, set_name: str) -> Path:
    return run.path / "samples" / f"{set_name}.jsonl"
