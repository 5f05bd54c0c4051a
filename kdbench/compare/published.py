"""Published tables, read from `published.yaml` and checked."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from kdbench.base.errors import UserError
from kdbench.base.registry import REFERENCES, unknown
from kdbench.base.strict_yaml import read_yaml_file, validated
from kdbench.config.schema import Fields
from kdbench.report.table import AVERAGE

FILE = Path(__file__).with_name("published.yaml")
HALF_A_UNIT = 0.005
"""An average is published to two decimals; beyond half a unit of the last it is another number."""

CONFIDENCE = {
    "A": "the authors' own file",
    "B": "an independent re-run",
    "C": "a transcription of the paper by others",
}

Score = Annotated[float, Field(ge=0, le=100)]


class Paper(Fields):
    """Where a table comes from."""

    title: str
    arxiv: str = ""
    venue: str = ""

    @property
    def citation(self) -> str:
        """The title, and in parentheses venue and arXiv number where they are known."""
        where = ", ".join(filter(None, (self.venue, self.arxiv and f"arXiv:{self.arxiv}")))
        return f"{self.title} ({where})" if where else self.title


class PublishedRow(Fields):
    """One row: what was published, and what kdbench runs for it."""

    variant: str | None = None
    lacks: str = ""
    suite: str = ""
    mean: list[Score | None]
    std: list[Score | None] | None = None
    average: Score | None = None
    inferred: str = ""

    @property
    def is_reference(self) -> bool:
        """True for the teacher and the initial student, which no objective trains."""
        return self.variant in REFERENCES


class PublishedTable(Fields):
    """A published table.

    Attributes:
        std: what the standard deviations cover; "" where there are none.
        inferred: what the source does not state and is assumed, for all rows.
    """

    id: str
    suite: str
    paper: Paper
    source: str
    confidence: Literal["A", "B", "C"]
    columns: Annotated[list[str], Field(min_length=1)]
    std: str = ""
    note: str = ""
    inferred: tuple[str, ...] = ()
    rows: Annotated[dict[str, PublishedRow], Field(min_length=1)]

    @property
    def sets(self) -> list[str]:
        """The evaluation sets that have a column; none where the table has averages alone."""
        return [name for name in self.columns if name != AVERAGE]

    @property
    def suites(self) -> list[str]:
        """The suites that its rows need, each once."""
        return list(dict.fromkeys(self.suite_of(row) for row in self.rows.values()))

    def suite_of(self, row: PublishedRow) -> str:
        """The suite that a row is run on."""
        return row.suite or self.suite

    def cell(
        self, row: PublishedRow, column: str, sets: Sequence[str] | None = None
    ) -> tuple[float, float]:
        """Published mean and standard deviation of a cell, NaN where it is not known.

        An average is over `sets`, by default all. Its deviation is that of a mean of sets decoded
        independently of each other.
        """
        is_whole = sets is None or not self.sets or set(sets) == set(self.sets)
        if column in self.sets or (column in self.columns and is_whole):
            index = self.columns.index(column)
            return _known(row.mean[index]), _known(row.std[index] if row.std else None)
        cells = [self.cell(row, name) for name in (self.sets if is_whole else sets or ())]
        mean = math.fsum(cell[0] for cell in cells) / len(cells)
        deviation = math.hypot(*(cell[1] for cell in cells)) / len(cells)
        if math.isnan(mean) and is_whole:
            mean = _known(row.average)
        return mean, deviation


class Published(Fields):
    """All published tables.

    Attributes:
        sizes: the prompts of each evaluation set, as published.
        inferred: what no source states and is assumed, for all tables.
    """

    sizes: dict[str, int]
    inferred: tuple[str, ...] = ()
    tables: list[PublishedTable]

    def table(self, name: str) -> PublishedTable:
        """A table by its id.

        Raises:
            UserError: there is none; with the nearest name.
        """
        by_id = {table.id: table for table in self.tables}
        if name not in by_id:
            raise UserError(f"{unknown('table', name, list(by_id))}; see reproduce --list")
        return by_id[name]


def load_published(path: Path = FILE) -> Published:
    """Reads the tables and checks them.

    Raises:
        UserError: broken data; with file, table and cell.
    """
    raw, _ = read_yaml_file(path)
    try:
        published = validated(Published, raw)
    except ValidationError as error:
        lines = [_explain(item["loc"], str(item["msg"]), raw) for item in error.errors()]
        raise UserError("\n".join(f"{path}: {line}" for line in lines)) from error
    if problems := list(_problems(published)):
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return published


def _problems(published: Published) -> Iterator[str]:
    ids = [table.id for table in published.tables]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield f"table {name}: stands there twice"
    for table in published.tables:
        for column in table.sets:
            if column not in published.sizes:
                yield f"table {table.id}: column {column}: its size is not in sizes"
        for name, row in table.rows.items():
            for problem in _row_problems(table, row):
                yield f"table {table.id}: row {name}: {problem}"


def _row_problems(table: PublishedTable, row: PublishedRow) -> Iterator[str]:
    for what, cells in (("mean", row.mean), ("std", row.std)):
        if cells is not None and len(cells) != len(table.columns):
            yield f"{what}: {len(cells)} cells for {len(table.columns)} columns"
            return
    if row.std and not table.std:
        yield "std: the table does not say what its deviations cover"
    if row.variant is None and not row.lacks:
        yield "variant: null, and lacks does not say why"
    if AVERAGE in table.columns or row.average is None or None in row.mean:
        return
    found = math.fsum(cell for cell in row.mean if cell is not None) / len(row.mean)
    if abs(found - row.average) > HALF_A_UNIT + 1e-9:
        yield f"average: {row.average:.2f}, and its cells give {found:.3f}"


def _explain(location: tuple[int | str, ...], message: str, raw: Any) -> str:
    """A place in the file with the table's id and the column's name where it has them."""
    words = []
    columns: list[str] = []
    for part in location:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            raw = None
        if isinstance(part, str):
            words.append(part)
        elif words and words[-1] == "tables":
            columns = raw.get("columns", []) if isinstance(raw, dict) else []
            words[-1] = f"table {raw.get('id', part) if isinstance(raw, dict) else part}"
        else:
            words.append(columns[part] if part < len(columns) else str(part))
    return f"{': '.join(words) or 'the file'}: {message}"


def _known(value: float | None) -> float:
    return math.nan if value is None else value
