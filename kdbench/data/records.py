"""Records of instruction data: where a suite's files are, and reading them without surprises."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench import store
from kdbench.errors import UserError
from kdbench.spec import Data, Split, Suite, digest


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


def locate(suite: Suite, data_dir: Path | None) -> Path:
    """The folder below which a suite's files lie, made or fetched where need be.

    Raises:
        UserError: the folder is missing, a file could not be had from the hub, or a file is not
            the one that the suite pins.
    """
    data = suite.data
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    if data_dir is None and data.generator:
        return _generated(data)
    if data_dir is None and from_hub(data):
        from kdbench.data.hub import fetch

        fetch(data)
    folder = place(data, data_dir)
    for name, split in splits_of(data).items():
        if (folder / split.path).is_file():
            check_file(folder / split.path, split, name, local=is_local(data, data_dir))
    return folder


def place(data: Data, data_dir: Path | None) -> Path:
    """The folder below which the files lie or will lie; nothing is made or fetched."""
    if data_dir is not None:
        return data_dir
    if data.generator:
        return _generated_folder(data)
    if from_hub(data):
        from kdbench.data.hub import hub_folder

        return hub_folder(data)
    return Path.cwd()


def from_hub(data: Data) -> bool:
    """Are the records taken from the hub where no folder is given?"""
    return not data.generator and all(split.hub for split in splits_of(data).values())


def is_local(data: Data, data_dir: Path | None) -> bool:
    """Are the files the user's own, or those of a mirror, and not copies of the hub's?"""
    return data_dir is not None or not from_hub(data)


def check_file(path: Path, split: Split, name: str, *, local: bool) -> None:
    """Compares a file with what the suite pins of it.

    Args:
        path: of the file.
        split: with the pins.
        name: of the split, for the message.
        local: it is no copy of the hub's, of which `sha256` says nothing.

    Raises:
        UserError: its digest or its number of records is another; with what to do.
    """
    if local:
        check_digest(path, split.sha256, str(path), f"{field_of(name)}.sha256")
    if split.records is None:
        return
    with path.open("rb") as file:
        found = sum(bool(line.strip()) for line in file)
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
    if pinned and (found := store.file_digest(path)) != pinned:
        raise UserError(
            f"{what}: the file is not the one that the suite pins in {field}\n"
            f"  pinned {pinned}\n  found  {found}\n"
            "Get the pinned file back, or, if the change is meant, write the digest found into the "
            f"suite, or say --set {field}={found} (nothing behind the = takes the pin back): the "
            "scores are then those of other data"
        )


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


def data_digest(folder: Path, data: Data) -> str:
    """Identifies the bytes of every file of a suite."""
    files = {
        name: store.file_digest(folder / split.path) for name, split in splits_of(data).items()
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


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


def _generated(data: Data) -> Path:
    folder = _generated_folder(data)
    generate = _generator(data)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                generate(temporary, seed=data.generator_seed)
    return folder


def _generated_folder(data: Data) -> Path:
    _generator(data)
    module = data.generator.partition(":")[0]
    code = {path.name: store.file_digest(path) for path in _sources(module)}
    return store.cache_dir() / "data" / digest(data.generator, data.generator_seed, code)


def _generator(data: Data) -> Callable[..., Any]:
    module, _, function = data.generator.partition(":")
    try:
        generate: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data.generator: {data.generator} cannot be imported: {error}") from error
    return generate


def _sources(module: str) -> list[Path]:
    """The generator's own source files: a changed world is another data set."""
    origin = Path(str(importlib.import_module(module).__file__))
    return sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
