"""The records of a suite's splits, and what the suite pins of their files."""

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
    """The records of one split, whose file lies below `folder`.

    Raises:
        UserError: the file is missing or empty, a record is broken, or one is a conversation, for
            which the `alpaca` template has no place; with file and row.
    """
    path = folder / split.path
    if not path.exists():
        raise UserError(f"{path}: no such file (--data-dir says below which folder the data lie)")
    rows, first = arrow.read_rows(path, split.columns, split.split)
    records: list[Record] = []
    for row, fields in enumerate(zip(*rows.to_dict().values(), strict=True), start=first):
        if len(records) == split.limit:
            break
        instruction, context, outputs, turns = fields
        record = Record(instruction, context, tuple(outputs), tuple(Turn(**turn) for turn in turns))
        if not _fits(record, split):
            continue
        if record.turns and template == "alpaca":
            raise UserError(
                f"{arrow.place(path, row)}: a conversation of {len(record.turns)} turns before the "
                "answer, and the Alpaca frame asks one user turn: use the tokenizer's chat "
                "template (--set data.template=chat), or take the record out of the file"
            )
        records.append(record)
    if not records:
        short = split.max_prompt_chars is not None or split.max_output_chars is not None
        raise UserError(
            f"{path}: an empty set; it needs at least one record"
            + (" within max_prompt_chars and max_output_chars" if short else "")
        )
    return records


def _fits(record: Record, split: Split) -> bool:
    asked, longest = split.max_prompt_chars, split.max_output_chars
    return (asked is None or record.characters <= asked) and (
        longest is None or all(len(output) <= longest for output in record.outputs)
    )


def check_file(path: Path, split: Split, name: str, *, local: bool) -> None:
    """Compares a split's file with its pins; of one that is not `local`, `sha256` says nothing.

    Raises:
        UserError: its digest or its number of records (before the long ones and the limit are
            taken off) is another; with what to do. Or a record of it is broken.
    """
    if local:
        check_digest(path, split.sha256, str(path), f"{field_of(name)}.sha256")
    if split.records is None:
        return
    found = len(arrow.read_rows(path, split.columns, split.split)[0])
    if found != split.records and not (split.limit and found >= split.limit):
        field = f"{field_of(name)}.records"
        raise UserError(
            f"{path}: {found:,} records, where the suite says {split.records:,} ({field}): is the "
            f"file whole? If it is what you mean, --set {field}={found}: the scores are then those "
            "of other data"
        )


def check_digest(path: Path, pinned: str, what: str, field: str) -> None:
    """Compares a file with a pinned digest; an empty one pins nothing.

    Raises:
        UserError: they differ; with `what` the file is, both digests and what to do.
    """
    if pinned and (found := arrow.source_digest(path)) != pinned:
        raise UserError(
            f"{what}: the file is not the one that the suite pins in {field}\n"
            f"  pinned {pinned}\n  found  {found}\n"
            "Get the pinned file back, or, if the change is meant, write the digest found into the "
            f"suite, or say --set {field}={found} (nothing behind the = takes the pin back): the "
            "scores are then those of other data"
        )
