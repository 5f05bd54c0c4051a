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
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in the archive, so that the same trials give the same bytes."""
_MEMBER = re.compile(
    r"trials/(?P<trial>[^/]+/seed-[^/]+)/"
    r"(?P<file>DONE\.json|scores\.parquet|spec\.json|train\.jsonl|generations/[^/]+\.jsonl)"
)

Files = dict[str, bytes]
"""Contents by path below a trial's folder."""


def pack(run: Run) -> bytes:
    """The archive of a run's finished trials."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for trial in run.finished():
            for path in _contents(trial):
                info = zipfile.ZipInfo(path.relative_to(run.path).as_posix(), _EPOCH)
                info.create_system, info.external_attr = 3, 0o644 << 16  # on every system
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes(), compresslevel=9)
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, Files]:
    """The files of every trial of an archive, by `<slug>/seed-<n>`.

    Raises:
        UserError: the file is no such archive, or broken.
    """
    trials: dict[str, Files] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                found = _MEMBER.fullmatch(name)
                if found is None:
                    raise UserError(f"{path}: holds {name}, which is no file of a trial")
                trials.setdefault(found["trial"], {})[found["file"]] = archive.read(name)
    # RuntimeError: a password, or a compression that is not supported.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise UserError(
            f"{path}: not an archive of trials ({error}); restore it, or delete it to do without"
        ) from error
    return trials


def key_of(trial: TrialFiles) -> str:
    """What a trial is called in an archive: `<slug>/seed-<n>`."""
    return f"{trial.path.parent.name}/{trial.path.name}"


def _contents(trial: TrialFiles) -> list[Path]:
    named = (trial.path / name for name in FILES)
    answers = (trial.path / "generations").glob("*.jsonl")
    return sorted(path for path in (*named, *answers) if path.exists())
