"""The records of a suite's splits."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.config.schema import Data, Split, Template
from kdbench.data import arrow
from kdbench.data.record import Record, Turn


def splits_of(data: Data) -> dict[str, Split]:
    """Every split of a suite by the name that tables and files use for it."""
    teacher = {"teacher": data.teacher} if data.teacher else {}
    return {**teacher, "train": data.train, "dev": data.dev, **data.evaluation}


def field_of(name: str) -> str:
    """Where a split stands in a suite, for messages and `--set`."""
    return f"data.{name}" if name in ("train", "dev", "teacher") else f"data.evaluation.{name}"


def read_split(folder: Path, split: Split, template: Template = "chat") -> list[Record]:
    """The records of one split.

    Args:
        folder: below which its file lies.
        split: which file, and which of its records.
        template: how they will be asked; `alpaca` has no place for a conversation.

    Raises:
        UserError: the file is missing or empty, a record is broken, or one is a conversation that
            the template cannot ask; with file and row.
    """
    path = folder / split.path
    if not path.exists():
        raise UserError(f"{path}: no such file (--data-dir says below which folder the data lie)")
    records = [record for _, record in _used(path, split)]
    for number, record in enumerate(records):
        if record.turns and template == "alpaca":
            raise UserError(
                f"{place_of(folder, split, number)}: a conversation of {len(record.turns)} turns "
                "before the answer, and the Alpaca frame asks one user turn: use the tokenizer's "
                "chat template (--set data.template=chat), or take the record out of the file"
            )
    if not records:
        raise UserError(
            f"{path}: an empty set; it needs at least one record"
            + (" within max_prompt_chars and max_output_chars" if _short(split) else "")
        )
    return records


def place_of(folder: Path, split: Split, number: int) -> str:
    """Where one of the records that `read_split` gives stands: file, and line or row."""
    path = folder / split.path
    row, _ = next(islice(_used(path, split), number, None))
    return arrow.place(path, row + arrow.first_row(path, split.columns, split.split))


def _used(path: Path, split: Split) -> Iterator[tuple[int, Record]]:
    """The records that a split takes, and which row of it each is."""
    rows = arrow.read_rows(path, split.columns, split.split).to_dict()
    left = split.limit
    for row, (instruction, context, outputs, turns) in enumerate(zip(*rows.values(), strict=True)):
        if left == 0:
            return
        record = Record(instruction, context, tuple(outputs), tuple(Turn(**turn) for turn in turns))
        if _fits(record, split):
            left = None if left is None else left - 1
            yield row, record


def count_rows(path: Path, split: Split) -> int:
    """How many records a split's file holds, before the long ones and its limit are taken off.

    Raises:
        UserError: a record is broken; with file and row.
    """
    return len(arrow.read_rows(path, split.columns, split.split))


def _fits(record: Record, split: Split) -> bool:
    asked, longest = split.max_prompt_chars, split.max_output_chars
    return (asked is None or record.characters <= asked) and (
        longest is None or all(len(output) <= longest for output in record.outputs)
    )


def _short(split: Split) -> bool:
    return split.max_prompt_chars is not None or split.max_output_chars is not None
