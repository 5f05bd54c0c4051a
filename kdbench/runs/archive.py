"""The small files of a run's finished trials in one zip file, from which a run elsewhere goes on.

It holds ids, scores, logs and the students' own answers: no weights, and no prompt or reference.
"""

import io
import re
import zipfile
import zlib
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.runs.folder import Run, TrialFiles

ARCHIVE = "trials.zip"
FILES = ("DONE.json", "scores.parquet", "spec.json", "train.jsonl")
"""Of a trial, beside its answers."""
MAX_BYTES = 100_000_000
"""Of an archive: what repositories take as one file."""
MAX_MEMBERS = 50_000
MAX_MEMBER_BYTES = 250_000_000
MAX_UNPACKED_BYTES = 2_000_000_000
MAX_RATIO = 200
"""Of unpacked to packed bytes, all in all, where that is more than `MAX_MEMBER_BYTES` / 10."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in the archive, so that the same trials give the same bytes."""
_MEMBER = re.compile(
    r"trials/(?P<trial>[a-z0-9][a-z0-9._-]*/seed-[0-9]+(\.init-[0-9]+)?)/"
    r"(?P<file>DONE\.json|scores\.parquet|spec\.json|train\.jsonl"
    r"|generations/[a-z0-9][a-z0-9.-]*\.jsonl)"
)

Files = dict[str, bytes]
"""Contents by path below a trial's folder."""


def pack(run: Run) -> bytes:
    """The archive of a run's finished trials.

    Raises:
        UserError: it would be too large to be read again.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for trial in run.finished():
            for path in _contents(trial):
                info = zipfile.ZipInfo(path.relative_to(run.path).as_posix(), _EPOCH)
                info.create_system, info.external_attr = 3, 0o644 << 16  # on every system
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes(), compresslevel=9)
    with zipfile.ZipFile(buffer) as archive:
        _check_size(archive, buffer.getbuffer().nbytes, f"{run.path}, packed")
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, Files]:
    """The files of every trial of an archive, by `<slug>/seed-<n>`.

    Raises:
        UserError: the file is no such archive, or broken, or larger than any that is written here;
            nothing has been unpacked then.
    """
    trials: dict[str, Files] = {}
    _at_most(path.stat().st_size, MAX_BYTES, "bytes", str(path))
    content = path.read_bytes()
    # Each member has an entry with this mark at the end of the file, which zipfile reads at once.
    _at_most(content.count(b"PK\1\2"), MAX_MEMBERS, "files", str(path))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_size(archive, len(content), str(path))
            for name in archive.namelist():
                found = _MEMBER.fullmatch(name)
                if found is None:
                    raise UserError(f"{path}: holds {name}, which is no file of a trial")
                files = trials.setdefault(found["trial"], {})
                if found["file"] in files:
                    raise UserError(f"{path}: holds {name} twice")
                files[found["file"]] = archive.read(name)
    # RuntimeError: a password, or a compression that is not supported.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise UserError(
            f"{path}: not an archive of trials ({error}); restore it, or delete it to do without"
        ) from error
    return trials


def _check_size(archive: zipfile.ZipFile, size: int, what: str) -> None:
    """Refuses what would take memory or time, by what the archive says of its members.

    zipfile unpacks no more of a member than that.
    """
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    allowed = max(MAX_RATIO * size, MAX_MEMBER_BYTES // 10)
    _at_most(size, MAX_BYTES, "bytes", what)
    _at_most(len(members), MAX_MEMBERS, "files", what)
    _at_most(total, min(MAX_UNPACKED_BYTES, allowed), f"bytes unpacked of {size:,}", what)
    for member in members:
        _at_most(member.file_size, MAX_MEMBER_BYTES, f"bytes of {member.filename}", what)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{what}: {member.filename} is not packed with deflate")


def _at_most(found: int, limit: int, what: str, where: str) -> None:
    if found > limit:
        raise UserError(f"{where}: {found:,} {what}; an archive of trials has at most {limit:,}")


def key_of(trial: TrialFiles) -> str:
    """What a trial is called in an archive: `<slug>/seed-<n>`."""
    return f"{trial.path.parent.name}/{trial.path.name}"


def _contents(trial: TrialFiles) -> list[Path]:
    named = (trial.path / name for name in FILES)
    answers = (trial.path / "generations").glob("*.jsonl")
    return sorted(path for path in (*named, *answers) if path.exists())
