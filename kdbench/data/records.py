"""The records of a suite's splits, what it pins of their files, and what moves scores in them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.config.schema import Data, Split, Template
from kdbench.data import arrow
from kdbench.data.record import Record, Turn

_FRAME_TEXT = re.compile(r"### (?:Instruction|Input|Response):|<\|\w{1,24}\|>|</?s>|\[/?INST\]")
"""The headings of the Alpaca frame, and what tokenizers call the ends of turns and documents."""


def splits_of(data: Data) -> dict[str, Split]:
    """Every split of a suite by the name that tables and files use for it."""
    teacher = {"teacher": data.teacher} if data.teacher else {}
    return {**teacher, "train": data.train, "dev": data.dev, **data.evaluation}


def field_of(name: str) -> str:
    """Where a split stands in a suite, for messages and `--set`."""
    return f"data.{name}" if name in ("train", "dev", "teacher") else f"data.evaluation.{name}"


def read_split(folder: Path, split: Split, template: Template = "chat") -> list[Record]:
    """The records of one split, whose file lies below `folder`.

    UserErrors name file and row: the file is missing or empty, a record is broken, or one is a
    conversation, for which the `alpaca` template has no place.
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
        short = split.max_prompt_chars is not None or split.max_output_chars is not None
        raise UserError(
            f"{path}: an empty set; it needs at least one record"
            + (" within max_prompt_chars and max_output_chars" if short else "")
        )
    return records


def place_of(folder: Path, split: Split, number: int) -> str:
    """Where one of the records that `read_split` gives stands: file, and line or row."""
    path = folder / split.path
    return arrow.place(path, next(islice(_used(path, split), number, None))[0])


def _used(path: Path, split: Split) -> Iterator[tuple[int, Record]]:
    """The records that a split takes, and which row of its file each is."""
    rows, first = arrow.read_rows(path, split.columns, split.split)
    left = split.limit
    for row, fields in enumerate(zip(*rows.to_dict().values(), strict=True), start=first):
        if left == 0:
            return
        instruction, context, outputs, turns = fields
        record = Record(instruction, context, tuple(outputs), tuple(Turn(**turn) for turn in turns))
        if _fits(record, split):
            left = None if left is None else left - 1
            yield row, record


def _fits(record: Record, split: Split) -> bool:
    asked, longest = split.max_prompt_chars, split.max_output_chars
    return (asked is None or record.characters <= asked) and (
        longest is None or all(len(output) <= longest for output in record.outputs)
    )


def check_file(path: Path, split: Split, name: str, *, local: bool) -> None:
    """Compares a split's file with its pins; of one that is not `local`, `sha256` says nothing.

    Records are counted before the long ones and the limit are taken off.
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
    """Compares a file with a pinned digest; an empty one pins nothing."""
    if pinned and (found := arrow.source_digest(path)) != pinned:
        raise UserError(
            f"{what}: the file is not the one that the suite pins in {field}\n"
            f"  pinned {pinned}\n  found  {found}\n"
            "Get the pinned file back, or, if the change is meant, write the digest found into the "
            f"suite, or say --set {field}={found} (nothing behind the = takes the pin back): the "
            "scores are then those of other data"
        )


def remarks(records: Mapping[str, Sequence[Record]]) -> list[str]:
    """One sentence for each thing in a split's records that is allowed and yet moves scores.

    These are prompts that are trained on too, empty outputs, text of a prompt's frame, and
    references that ROUGE-L cannot read, since its tokens are runs of [a-z0-9].
    """
    trained = [name for name in ("train", "teacher") if name in records]
    found = []
    prompts = {
        name: [(row.instruction.strip(), row.input.strip()) for row in rows]
        for name, rows in records.items()
    }
    for name, rows in records.items():
        total = f"of {len(rows):,} records"
        for other in () if name in trained else trained:
            asked = set(prompts[other])
            if again := sum(prompt in asked for prompt in prompts[name]):
                found.append(f"{name}: {again:,} {total} have a prompt that stands in {other} too")
        if empty := sum(any(not text.strip() for text in row.outputs) for row in rows):
            found.append(f"{name}: {empty:,} {total} have an empty output")
        found += framed(name, rows)
        if name in trained:
            found += spaced(name, rows)
        if name not in (*trained, "dev"):
            found += foreign(name, rows)
    return found


def foreign(name: str, rows: Sequence[Record]) -> list[str]:
    """A sentence on the records of a set that ROUGE-L cannot score, where there are any."""
    count = sum(all(map(unreadable, row.outputs)) for row in rows)
    if not count:
        return []
    return [
        f"{name}: {count:,} of {len(rows):,} records have only references without a-z and 0-9 "
        "(another script): ROUGE-L is 0 for them, whatever is answered"
    ]


def framed(name: str, rows: Sequence[Record]) -> list[str]:
    """A sentence on the records that hold text of a prompt's frame, where there are any."""
    held: Counter[str] = Counter()
    count = 0
    for row in rows:
        said = [row.instruction, row.input, *row.outputs, *(turn.content for turn in row.turns)]
        found = {text for part in said for text in _FRAME_TEXT.findall(part)}
        held.update(found)
        count += bool(found)
    if not count:
        return []
    named = ", ".join(f"{text} ({number:,})" for text, number in held.most_common(3))
    return [
        f"{name}: {count:,} of {len(rows):,} records hold text that prompts are framed with: "
        f"{named}; it is encoded as text, and a student may learn to write it"
    ]


def spaced(name: str, rows: Sequence[Record]) -> list[str]:
    """A sentence on the answers to train on that begin with white space, where there are any."""
    count = sum(row.target[:1].isspace() and bool(row.target.strip()) for row in rows)
    if not count:
        return []
    return [
        f"{name}: {count:,} of {len(rows):,} answers begin with white space, which is trained on: "
        "many tokenizers make other ids of a first word behind a space"
    ]


def unreadable(text: str) -> bool:
    """Whether a text has letters, but none that ROUGE-L reads."""
    return any(map(str.isalpha, text)) and not re.search("[a-z0-9]", text.lower())
