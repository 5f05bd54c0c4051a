"""Files of records as Arrow tables: read by Hugging Face `datasets`, kept by content.

JSON lines, JSON lists, Parquet, CSV and TSV files, folders that `save_to_disk` wrote, and folders
of such files (a mirror of a dataset on the hub). What is kept lies in the cache under the sha256 of
the source's bytes, never its time, and is memory-mapped. Streaming is left out on purpose: an
epoch's order is a permutation of all rows, so all of them have to be here.
"""

import csv
import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base import seal, store
from kdbench.base.errors import UserError, first_line
from kdbench.config.identity import digest
from kdbench.config.schema import Column
from kdbench.data.record import Record

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

TRAIN = "train"
"""What `datasets` calls the rows of a file."""
_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
"""By the end of a file's name; every other file is JSON."""
DEPTH = 500
"""Brackets that a line of JSON may open before its nesting is looked at."""
_NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0", "No columns to parse")
"""What datasets, pyarrow and pandas say of a file without rows."""


def read_rows(path: Path, columns: Mapping[Column, str], split: str) -> "tuple[Dataset, int]":
    """The records of a file or folder (instruction, input, outputs, turns), and the first's row.

    A `split` is what `datasets` calls so, such as `train[1000:]`; "" for all rows of a file, or of
    a folder with one split. For `columns` see `Record.of`. UserErrors name file and row.
    """
    from datasets import load_from_disk

    name = split.partition("[")[0]
    if path.is_file():
        _one({TRAIN: None}, name, path)
    kind = [path.suffix, name, dict(columns), version("datasets")]
    folder = store.cache_dir() / "records" / digest(source_digest(path), *kind)
    with quiet():
        if not folder.exists():
            with store.locked(folder.with_suffix(".lock")):
                if not folder.exists():
                    with seal.sealed_folder(folder) as temporary:
                        work = temporary / "work"
                        _mapped(path, columns, name, work).save_to_disk(temporary / "rows")
                        shutil.rmtree(work, ignore_errors=True)
        rows: Dataset = load_from_disk(_whole(folder) / "rows")
    first, end = _bounds(split, len(rows), path)
    return rows.select(range(first, end)), first


def _whole(folder: Path) -> Path:
    """A folder of the cache, after a check of its bytes."""
    try:
        seal.check_folder(folder)
    except seal.DamagedError as error:
        seal.remove(folder)
        raise UserError(f"{error}; it was removed: the same command makes it again") from error
    return folder


def place(path: Path, row: int) -> str:
    """Where a row stands, counted from 0: `file:line` of JSON lines, else file and row."""
    if is_json_lines(path):
        with path.open("rb") as file:
            lines = [number for number, line in enumerate(file, start=1) if line.strip()]
        if row < len(lines):
            return f"{path}:{lines[row]}"
    return f"{path}, row {row + 1}"


def source_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, over the names and digests of its files."""
    if path.is_file():
        return store.file_digest(path)
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if odd := next((name for name in shown if not name.isascii() and not _is_utf8(name)), None):
        raise UserError(f"{path}: the file name {odd!a} is not UTF-8; rename it")
    lines = "".join(f"{store.file_digest(path / name)}  {name}\n" for name in shown)
    return hashlib.sha256(lines.encode()).hexdigest()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(path: Path) -> bool:
    return path.is_file() and path.suffix not in _BUILDERS


def is_json_lines(path: Path) -> bool:
    """Whether a file is JSON, and not one list."""
    if not _is_json(path):
        return False
    with path.open("rb") as file:
        return not file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def read_raw(path: Path, work: Path) -> "Dataset":
    """The rows of a file as they stand; the library's cache in `work` has to stay as long."""
    try:
        with quiet():
            return _one(_load(path, work), "", path)
    except Exception as error:
        raise _refusal(error, path) from error


def _load(path: Path, work: Path) -> "DatasetDict":
    """A source as it stands, by split."""
    from datasets import Dataset, DatasetDict, Features, Value, load_dataset, load_from_disk

    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            saved = load_from_disk(path)
            return DatasetDict({TRAIN: saved}) if isinstance(saved, Dataset) else saved
        for file in sorted(path.rglob("*.json*")):
            _check_depth(file)
        return load_dataset(str(path), cache_dir=str(work))
    builder = _BUILDERS.get(path.suffix, "json")
    options: dict[str, Any] = {}
    if builder == "json":
        _check_depth(path)
        # In one piece, so that types are inferred once.
        options = {"chunksize": max(1, path.stat().st_size)}
    elif builder == "csv":  # all is text: no number, date or gap is made of it
        separator = "\t" if path.suffix == ".tsv" else ","
        features = Features({name: Value("string") for name in _header(path, separator)})
        options = {"features": features, "sep": separator, "keep_default_na": False}
        options["encoding"] = "utf-8-sig"
    files = glob.escape(str(path))
    return load_dataset(builder, data_files=files, cache_dir=str(work), **options)


def _check_depth(path: Path) -> None:
    """Refuses what is nested so deeply that Arrow's parser would end the process.

    Raises:
        RecursionError: Python's parser cannot read a line, either.
    """
    with path.open("rb") as file:
        for line in file:
            if line.count(b"[") + line.count(b"{") > DEPTH:
                with suppress(ValueError):  # which is for the reader to name
                    json.loads(line)


def _header(path: Path, separator: str) -> list[str]:
    """The names of a CSV file's columns; a row has as many fields, or would read as empty texts."""
    csv.field_size_limit(2**31 - 1)  # of a text; by default 131,072 characters
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file, delimiter=separator) if row)
        header = next(rows, [])
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                fields = f"{len(row)} fields, and the header names {len(header)}"
                raise UserError(f"{path}, row {number}: {fields}")
    return header


def _mapped(path: Path, columns: Mapping[Column, str], name: str, work: Path) -> "Dataset":
    """The records of one split of a source, out of `_load`."""
    from datasets import Dataset

    try:
        try:
            if _is_json(path) and not is_json_lines(path):  # Arrow drops half a surrogate pair
                raise ValueError("a JSON list is Python's to read")
            return _map(_one(_load(path, work), name, path), columns, path, work)
        except Exception:
            if not _is_json(path):
                raise
        # Arrow could not hold the fields (a number, a date, text here and a list there), or a
        # record is broken: by Python's reader the first that is broken is named, and the others
        # are text to Arrow.
        fields = {"path": path, "columns": dict(columns)}
        return Dataset.from_generator(
            _json_rows, features=_features(), cache_dir=str(work), gen_kwargs=fields
        )
    except Exception as error:  # of pyarrow, pandas and datasets, which wrap one another
        raise _refusal(error, path) from error


def _refusal(error: BaseException, path: Path) -> UserError:
    """The message of the innermost error, or the user's mistake that it wraps."""
    while not isinstance(error, UserError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, UserError):
        return error
    if any(words in str(error) for words in _NO_ROWS):
        return UserError(f"{path}: an empty set; it needs at least one record")
    return UserError(f"{path}: no records that can be read: {first_line(error)}")


def _one(splits: "DatasetDict", name: str, path: Path) -> "Dataset":
    """The split of that name; the only one where there is no name."""
    if not name and len(splits) == 1:
        return next(iter(splits.values()))
    if name not in splits:
        said = f"has no split '{name}'" if name else "has several splits"
        raise UserError(
            f"{path}: {said} ({', '.join(splits)}); write split: NAME beside the path in the suite"
        )
    return splits[name]


def _map(raw: "Dataset", columns: Mapping[Column, str], path: Path, work: Path) -> "Dataset":
    work.mkdir(parents=True, exist_ok=True)
    return raw.map(
        lambda row, number: _fields(row, f"{path}, row {number + 1}", columns),
        with_indices=True,
        remove_columns=raw.column_names,
        features=_features(),
        load_from_cache_file=False,
        cache_file_name=str(work / "mapped.arrow"),
        new_fingerprint="records",
    )


def _fields(row: Any, where: str, columns: Mapping[Column, str]) -> dict[str, Any]:
    return asdict(Record.of(row, where, columns))


def _features() -> "Features":
    from datasets import Features, Value

    text = Value("string")
    turns = [{"role": text, "content": text}]
    return Features({"instruction": text, "input": text, "outputs": [text], "turns": turns})


def _json_rows(path: Path, columns: Mapping[Column, str]) -> Iterator[dict[str, Any]]:
    """The rows of a JSON file by Python's own reader, whose errors name the line."""
    if is_json_lines(path):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield _fields(_json(line, f"{where}: not a JSON object"), where, columns)
        return
    for number, row in enumerate(_json(path.read_bytes(), f"{path}: not a JSON list"), start=1):
        yield _fields(row, f"{path}, row {number}", columns)


def _json(text: bytes, what: str) -> Any:
    try:
        value = json.loads(text.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} in UTF-8: {error}") from error
    return value


def _bounds(split: str, rows: int, path: Path) -> tuple[int, int]:
    """The first row that a split takes, and the one behind its last."""
    from datasets import ReadInstruction

    if "[" not in split:
        return 0, rows
    try:
        name = split.partition("[")[0]
        (part,) = ReadInstruction.from_spec(split).to_absolute({name: rows})
    except (AssertionError, ValueError) as error:
        raise UserError(f"{path}: split: {split}: {first_line(error)}") from error
    return part.from_, max(part.from_, part.to)


@contextmanager
def quiet() -> Iterator[None]:
    """Neither progress bars and logs nor a request that counts downloads, while this stands."""
    import datasets
    from datasets import config, logging

    shown, level = datasets.is_progress_bar_enabled(), logging.get_verbosity()
    counted = config.HF_UPDATE_DOWNLOAD_COUNTS
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = counted
        logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()
