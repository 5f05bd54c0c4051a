"""What a run trained on in one step: the batch that a loss spiked on."""

from dataclasses import dataclass

from kdbench.base.errors import UserError
from kdbench.pipeline.artifacts import Artifacts
from kdbench.runs.folder import Run


@dataclass(frozen=True)
class Sequence:
    """One training sequence, decoded.

    Attributes:
        row: its place in the encoded training split.
        prompt: the framed prompt.
        response: the gold response; a variant that trains on other answers shares the prompt alone.
    """

    row: int
    prompt: str
    response: str


def batch_of(run: Run, artifacts: Artifacts, seed: int, step: int) -> list[Sequence]:
    """The global batch of a step (from 1), the same for all variants and initial students.

    Raises:
        UserError: no such step, or the records or their encoding are not those of the run.
    """
    from kdbench.data.batches import batch_rows
    from kdbench.data.encode import Encoded
    from kdbench.data.tokenizer import load_tokenizer

    suite, shared = artifacts.suite, run.spec.shared
    if not 1 <= step <= suite.recipe.steps:
        raise UserError(
            f"--step {step}: the trainings of {run.path} have {suite.recipe.steps} steps"
        )
    if artifacts.data_key != shared.data_digest:
        raise UserError(
            f"{artifacts.data_folder}: not the records that {run.path} was trained on; give their "
            "folder with --data-dir"
        )
    path = artifacts.encoded / "train.safetensors"
    if not path.exists():
        raise UserError(
            f"{path}: the encoded records are not in this machine's cache; the run's own command "
            "makes them again"
        )
    data, tokenizer = Encoded.load(path), load_tokenizer(artifacts.tokenizer)
    rows = batch_rows(len(data), suite.recipe.batch, step - 1, suite=suite.name, seed=seed).tolist()
    return [
        Sequence(row, tokenizer.decode(data.prompt(row)), tokenizer.decode(data.response(row)))
        for row in rows
    ]
