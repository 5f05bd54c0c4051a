"""Records of instruction data, and reading them without surprises."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.config.schema import Data, Split


@dataclass(frozen=True)
class Record:
    """One item: what is asked, and the answers that count as right."""

    instruction: str
    input: str
    outputs: tuple[str, ...]

    @property
    def target(self) -> str:
        """The answer to train on: the first."""
        return self.outputs[0]

    @staticmethod
    def of(row: Any, where: str) -> "Record":
        """The record that a JSON value describes.

        Raises:
            UserError: it is not an object, lacks a field, or a field is not text; with `where`.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: not a JSON object but {type(row).__name__}")
        for field in ("instruction", "output"):
            if field not in row:
                raise UserError(f"{where}: the field '{field}' is missing")
        outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
        context = "" if row.get("input") is None else row["input"]
        texts = {"instruction": row["instruction"], "input": context}
        for field, text in [*texts.items(), *(("output", output) for output in outputs)]:
            if not isinstance(text, str):
                raise UserError(f"{where}: '{field}' has to be text, not {type(text).__name__}")
        if not outputs:
            raise UserError(f"{where}: 'output' is an empty list")
        return Record(texts["instruction"], texts["input"], tuple(outputs))


def splits_of(data: Data) -> dict[str, Split]:
    """Every split of a suite by the name that tables and files use for it."""
    teacher = {"teacher": data.teacher} if data.teacher else {}
    return {**teacher, "train": data.train, "dev": data.dev, **data.evaluation}


def field_of(name: str) -> str:
    """Where a split stands in a suite, for messages and `--set`."""
    return f"data.{name}" if name in ("train", "dev", "teacher") else f"data.evaluation.{name}"


def read_split(folder: Path, split: Split) -> list[Record]:
    """The records of one split.

    Raises:
        UserError: the file is missing or empty, or a line is broken; with file and line.
    """
    path = folder / split.path
    if not path.is_file():
        raise UserError(f"{path}: no such file (--data-dir says below which folder the data lie)")
    records: list[Record] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if split.limit is not None and len(records) == split.limit:
                break
            if line.strip() and _fits(record := _read_record(line, f"{path}:{number}"), split):
                records.append(record)
    if not records:
        raise UserError(
            f"{path}: an empty set; it needs at least one record"
            + (" within max_prompt_chars and max_output_chars" if _short(split) else "")
        )
    return records


def _fits(record: Record, split: Split) -> bool:
    asked, longest = split.max_prompt_chars, split.max_output_chars
    return (asked is None or len(record.instruction) + len(record.input) <= asked) and (
        longest is None or all(len(output) <= longest for output in record.outputs)
    )


def _short(split: Split) -> bool:
    return split.max_prompt_chars is not None or split.max_output_chars is not None


def _read_record(line: bytes, where: str) -> Record:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON object in UTF-8: {error}") from error
    return Record.of(row, where)
