"""The records of a suite's splits."""

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
    rows = arrow.read_rows(path, split.columns, split.split).to_dict()
    records: list[Record] = []
    for row, (instruction, context, outputs, turns) in enumerate(zip(*rows.values(), strict=True)):
        if split.limit is not None and len(records) == split.limit:
            break
        record = Record(instruction, context, tuple(outputs), tuple(Turn(**turn) for turn in turns))
        if not _fits(record, split):
            continue
        if record.turns and template == "alpaca":
            row += arrow.first_row(path, split.columns, split.split)
            raise UserError(
                f"{arrow.place(path, row)}: a conversation of {len(record.turns)} turns before the "
                "answer, and the Alpaca frame asks one user turn: use the tokenizer's chat "
                "template (--set data.template=chat), or take the record out of the file"
            )
        records.append(record)
    if not records:
        raise UserError(
            f"{path}: an empty set; it needs at least one record"
            + (" within max_prompt_chars and max_output_chars" if _short(split) else "")
        )
    return records


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
