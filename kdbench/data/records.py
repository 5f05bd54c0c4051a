"""Records of instruction data: where a suite's files are, and reading them without surprises."""

import hashlib
import importlib
import json
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


def splits_of(data: Data) -> dict[str, Split]:
    """Every split of a suite by the name that tables and files use for it."""
    teacher = {"teacher": data.teacher} if data.teacher else {}
    return {**teacher, "train": data.train, "dev": data.dev, **data.evaluation}


def locate(suite: Suite, data_dir: Path | None) -> Path:
    """The folder below which a suite's files lie, made or fetched where need be.

    Raises:
        UserError: the suite says neither how to generate nor where to find its data.
    """
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UserError(f"--data-dir {data_dir}: no such folder")
        return data_dir
    if suite.data.generator:
        return _generated(suite.data)
    if all(split.hub for split in splits_of(suite.data).values()):
        return _from_hub(suite.data)
    return Path.cwd()


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
            if line.strip():
                records.append(_read_record(line, f"{path}:{number}"))
    if not records:
        raise UserError(f"{path}: an empty set; it needs at least one record")
    return records


def data_digest(folder: Path, data: Data) -> str:
    """Identifies the bytes of every file of a suite."""
    files = {
        name: store.file_digest(folder / split.path) for name, split in splits_of(data).items()
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _read_record(line: bytes, where: str) -> Record:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a JSON object in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object but {type(row).__name__}")
    for field in ("instruction", "output"):
        if field not in row:
            raise UserError(f"{where}: the field '{field}' is missing")
    outputs = row["output"] if isinstance(row["output"], list) else [row["output"]]
    texts = {"instruction": row["instruction"], "input": row.get("input") or ""}
    for field, text in [*texts.items(), *(("output", output) for output in outputs)]:
        if not isinstance(text, str):
            raise UserError(f"{where}: '{field}' has to be text, not {type(text).__name__}")
    if not outputs:
        raise UserError(f"{where}: 'output' is an empty list")
    return Record(texts["instruction"], texts["input"], tuple(outputs))


def _generated(data: Data) -> Path:
    module, _, function = data.generator.partition(":")
    try:
        generate = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"data.generator: {data.generator} cannot be imported: {error}") from error
    code = {path.name: store.file_digest(path) for path in _sources(module)}
    folder = store.cache_dir() / "data" / digest(data.generator, data.generator_seed, code)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                generate(temporary, seed=data.generator_seed)
    return folder


def _sources(module: str) -> list[Path]:
    """The generator's own source files: a changed world is another data set."""
    origin = Path(str(importlib.import_module(module).__file__))
    return sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]


def _from_hub(data: Data) -> Path:
    """Copies the files from the hub into the cache (untested on the real hub)."""
    from datasets import load_dataset

    splits = splits_of(data)
    origin = {n: [s.hub, s.hub_file, s.hub_rows, s.path] for n, s in splits.items()}
    folder = store.cache_dir() / "hub" / digest(origin)
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with store.new_folder(folder) as temporary:
                for name, split in splits.items():
                    file = split.hub_file or Path(split.path).name
                    wanted = f"train[{split.hub_rows}]" if split.hub_rows else "train"
                    try:
                        rows = load_dataset(split.hub, data_files=file, split=wanted)
                    except Exception as error:
                        raise UserError(
                            f"{name}: {split.hub}/{file} could not be loaded from the hub "
                            f"({type(error).__name__}: {error}); --data-dir names a local copy"
                        ) from error
                    store.write_jsonl(temporary / split.path, (dict(row) for row in rows))
    return folder
