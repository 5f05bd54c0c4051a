"""An archive of a stranger's trials: refused by its size before any of it is unpacked."""

import io
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdbench.base.errors import UserError
from kdbench.runs import archive
from kdbench.runs.archive import unpack
from kdbench.runs.scores import scores_of

ZEROS = bytes(30_000_000)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def log(number: int) -> str:
    return f"trials/sft/seed-{number}/train.jsonl"


def ratio() -> bytes:
    return zipped((log(0), ZEROS))


def many() -> bytes:
    return zipped(*((log(n), b"") for n in range(60_000)), method=zipfile.ZIP_STORED)


def one() -> bytes:
    """A member that says it unpacks to 4 GB, in an archive that is large enough for that ratio."""
    content = zipped((log(0), b"x" * 3_000_000), method=zipfile.ZIP_STORED)
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + (400_000_000).to_bytes(4, "little") + content[place + 4 :]


def overlapping() -> bytes:
    """A thousand entries for one stream of a megabyte."""
    content = zipped((log(0), ZEROS[:1_000_000]))
    place, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = content[place:end] * 1000
    tail = content[end:]
    counts = (1000).to_bytes(2, "little") * 2 + len(entries).to_bytes(4, "little")
    return content[:place] + entries + tail[:8] + counts + tail[16:]


def other_method() -> bytes:
    return zipped((log(0), ZEROS[:1000]), method=zipfile.ZIP_LZMA)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zipped((log(0), b"{}\n"), (log(0), b"[]\n"))


def huge() -> bytes:
    return zipped((log(0), b"")) + bytes(archive.MAX_BYTES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ratio, r"30,000,000 bytes unpacked of 29,\d+; an archive of trials has at most 25,000,0"),
        (many, "60,000 files; an archive of trials has at most 50,000"),
        (one, r"400,000,000 bytes of trials/sft/seed-0/train\.jsonl; .* at most 250,000,000"),
        (overlapping, "1,000,000,000 bytes unpacked"),
        (other_method, "is not packed with deflate"),
        (twice, "twice"),
        (huge, "bytes; an archive of trials has at most 100,000,000"),
    ],
)
def test_what_would_take_memory_or_time_is_refused_at_once(
    tmp_path: Path, make: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "trials.zip"
    path.write_bytes(make())
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(UserError, match=message):
        unpack(path)
    took, (_, peak) = time.monotonic() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "name",
    [
        "trials/../seed-0/DONE.json",
        "trials/./seed-0/DONE.json",
        "trials/a\\b/seed-0/DONE.json",
        "trials/a/seed-../DONE.json",
        "trials/a/seed-0/generations/..jsonl",
        "trials/a/seed-0/generations/x/y.jsonl",
        "trials/a/seed-0/inner.zip",
        "trials/a/seed-0/",
        "/trials/a/seed-0/DONE.json",
        "trials/a\n/seed-0/DONE.json",
    ],
)
def test_only_files_of_trials_are_members(tmp_path: Path, name: str) -> None:
    path = tmp_path / "trials.zip"
    path.write_bytes(zipped((name, b"{}")))
    with pytest.raises(UserError, match="no file of a trial"):
        unpack(path)


def test_a_small_table_of_very_many_scores_is_not_read() -> None:
    rows = 6_000_000
    table = pa.table({"value": pa.repeat(pa.scalar(1.0), rows)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(UserError, match="6,000,000 rows; at most 5,000,000"):
        scores_of(buffer, "scores.parquet")
