"""A run's rows in the formats of other tools: Parquet, DuckDB, CSV, and lm-evaluation-harness's."""

import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.report.frames import BoardFrames, RunFrames, frames_of
from kdbench.report.lm_eval import write_lm_eval
from kdbench.report.table import write_csv
from kdbench.runs.folder import Run

Format = Literal["parquet", "duckdb", "csv", "lm-eval"]
FORMATS: tuple[Format, ...] = ("parquet", "duckdb", "csv", "lm-eval")
MANIFEST = "export.json"
"""In every exported folder; only a folder that has one is ever replaced."""


@dataclass(frozen=True)
class Exported:
    """What was written: a folder or a database file, with so many rows per table or kind of file.

    Prompts and references of the `withheld` sets were left out; `open_trials` have no scores yet.
    """

    path: Path
    rows: dict[str, int]
    withheld: list[str]
    open_trials: int


def export(
    run: Run,
    kind: Format,
    output: Path | None = None,
    *,
    force: bool = False,
    include_withheld: bool = False,
) -> Exported:
    """Writes all rows of a run, whole or not at all.

    Args:
        run: of which at least one trial is finished, or a published board.
        kind: the format.
        output: the folder or file; `<run>/export/<kind>` where it is left out.
        force: replace an earlier export.
        include_withheld: also prompts and references of the sets marked `redistribute: false`.

    Raises:
        UserError: something that is no earlier export is in the way, or an earlier one without
            `force`; nothing is finished; DuckDB is not installed; or there are no answers.
    """
    if kind == "duckdb":
        _duckdb()
    name = f"{run.path.resolve().name}.duckdb" if kind == "duckdb" else kind
    target = (run.path / "export" / name if output is None else output).absolute()
    _check_target(target, kind, force)
    frames = frames_of(run)
    if isinstance(frames, RunFrames) and frames.scores.empty:
        raise UserError(f"{run.path}: no finished trial to export; run it first")
    withheld = [] if include_withheld else [name for name, free in frames.sets.items() if not free]
    tables = {} if kind == "lm-eval" else read_tables(frames, withheld)
    rows = {name: len(table) for name, table in tables.items()}
    if kind == "duckdb":
        _write_duckdb(target, tables)
    else:
        with store.new_folder(target) as folder:
            if kind == "lm-eval":
                rows = write_lm_eval(frames, folder, withheld)
            for name, table in tables.items():
                if kind == "parquet":
                    pq.write_table(to_arrow(table), folder / f"{name}.parquet", compression="zstd")
                else:
                    write_csv(folder / f"{name}.csv", _to_text(table))
            manifest = {
                "run": run.path.resolve().name,
                "format": kind,
                "kdbench": importlib.metadata.version("kdbench"),
                "rows": rows,
                "withheld": withheld,
            }
            store.write_json(folder / MANIFEST, manifest)
    unfinished = (
        0 if isinstance(frames, BoardFrames) else int((frames.trials["status"] == "open").sum())
    )
    return Exported(target, rows, withheld, unfinished)


def read_tables(frames: RunFrames | BoardFrames, withheld: list[str]) -> dict[str, pd.DataFrame]:
    """The frames that an export holds, without the prompts and references of the sets withheld."""
    tables: dict[str, pd.DataFrame] = {name: getattr(frames, name) for name in frames.TABLES}
    if isinstance(frames, BoardFrames):
        return tables
    samples = tables["samples"].copy()
    hidden = samples["set"].isin(withheld)
    for column in ("instruction", "input", "references"):
        samples[column] = samples[column].where(~hidden, None)
    return tables | {"samples": samples}


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """A table with the types that the frame's columns would have if none were empty."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    if "references" not in frame:
        return table
    place = table.schema.get_field_index("references")
    values = pa.array(table.column(place).to_pylist(), pa.list_(pa.string()))
    return table.set_column(place, "references", values)


def _to_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Lists become JSON."""
    if "references" not in frame:
        return frame
    texts = [
        None if texts is None else json.dumps(texts, ensure_ascii=False)
        for texts in frame["references"]
    ]
    return frame.assign(references=pd.Series(texts, index=frame.index, dtype="string"))


def _write_duckdb(target: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    duckdb = _duckdb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.duckdb"
        with duckdb.connect(str(path)) as database:
            for name, frame in tables.items():
                database.register("rows_of_the_table", to_arrow(frame))
                database.execute(f"CREATE TABLE {name} AS SELECT * FROM rows_of_the_table")
                database.unregister("rows_of_the_table")
        store.write_bytes(target, path.read_bytes())


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise UserError(
            "--format duckdb: duckdb is not installed; pip install 'kdbench[export]', or export "
            "Parquet, which DuckDB reads too"
        ) from error
    return duckdb


def _check_target(target: Path, kind: Format, force: bool) -> None:
    """Refuses to replace what is not an earlier export, or is one and nobody said so."""
    if not target.exists():
        return
    if kind == "duckdb":
        ours = target.is_file() and _is_exported(target)
    else:
        ours = target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))
    if not ours:
        raise UserError(f"{target}: there already, and not an export; choose another --output")
    if not force and (kind == "duckdb" or (target / MANIFEST).is_file()):
        raise UserError(f"{target}: exported already; --force replaces it")


def _is_exported(path: Path) -> bool:
    """Whether a file is a DuckDB database of an export's tables and no others."""
    duckdb = _duckdb()
    try:
        with duckdb.connect(str(path), read_only=True) as database:
            tables = {name for (name,) in database.execute("SHOW TABLES").fetchall()}
    except duckdb.Error:
        return False
    return bool(tables) and tables <= set(RunFrames.TABLES)
