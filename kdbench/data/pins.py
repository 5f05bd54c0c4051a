"""What a suite pins of its files, compared with the files."""

from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.config.schema import Split
from kdbench.data.arrow import source_digest
from kdbench.data.records import count_rows, field_of


def check_file(path: Path, split: Split, name: str, *, local: bool) -> None:
    """Compares a file with what the suite pins of it.

    Args:
        path: of the file.
        split: with the pins.
        name: of the split, for the message.
        local: it is no copy of the hub's, of which `sha256` says nothing.

    Raises:
        UserError: its digest or its number of records is another; with what to do. Or a record of
            it is broken.
    """
    if local:
        check_digest(path, split.sha256, str(path), f"{field_of(name)}.sha256")
    if split.records is None:
        return
    found = count_rows(path, split)
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
    if pinned and (found := source_digest(path)) != pinned:
        raise UserError(
            f"{what}: the file is not the one that the suite pins in {field}\n"
            f"  pinned {pinned}\n  found  {found}\n"
            "Get the pinned file back, or, if the change is meant, write the digest found into the "
            f"suite, or say --set {field}={found} (nothing behind the = takes the pin back): the "
            "scores are then those of other data"
        )
