"""The prompts and references of a run's evaluation sets, kept in its folder for its pages."""

from dataclasses import dataclass
from pathlib import Path

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.runs.folder import Run


@dataclass(frozen=True)
class Sample:
    """What a student was asked, and the answers that count as right."""

    instruction: str
    input: str
    references: tuple[str, ...]


def read_samples(run: Run, set_name: str) -> list[Sample]:
    """The samples of one set in their order; [] where the run's folder does not hold them.

    Raises:
        UserError: the file is not what a run wrote.
    """
    path = samples_file(run, set_name)
    samples = []
    try:
        for row in store.read_jsonl(path):
            instruction, context = map(str, row["text"])
            samples.append(Sample(instruction, context, tuple(map(str, row["references"]))))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not the samples of a run; delete it, and give the run's command to have it "
            "made again"
        ) from error
    return samples


def samples_file(run: Run, set_name: str) -> Path:
    """Where the samples of one set lie."""
    return run.path / "samples" / f"{set_name}.jsonl"
