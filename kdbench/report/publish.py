"""A report's files, copied to a board.

A board is the part of a run that is small enough to be committed and free enough to be shown.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.identity import Shared, differences
from kdbench.report.private import check_board, check_suite
from kdbench.report.stamp import EVIDENCE, PAGE, TABLES, is_current
from kdbench.runs.archive import ARCHIVE, key_of, pack, unpack
from kdbench.runs.folder import Run, TrialFiles


def publish_latest(run: Run, boards: Path, *, trials: bool = False) -> str:
    """Publishes a run, after a new report where trials have finished since the last one.

    Safe beside the run itself and beside other reports of it. Returns, in words, what was
    published; raises what `publish` does, or a UserError where no trial is finished.
    """
    from kdbench.report.write import write_report  # brings pandas and the plots

    with reporting(run):
        if store.is_locked(run.path / ".lock") or not is_current(run):
            write_report(run)
        target = publish(run, boards, trials=trials)
    archive = target / ARCHIVE
    if not archive.exists():
        return f"published to {target}"
    count = len(run.finished())
    size = archive.stat().st_size / 1e6
    return f"published to {target}, {count} trials in {ARCHIVE} ({size:.2f} MB)"


@contextmanager
def reporting(run: Run) -> Iterator[None]:
    """One process at a time writes a run's report, or copies it; the others wait."""
    with store.locked(run.path / ".report.lock"):
        yield


def publish(run: Run, boards: Path, *, trials: bool = False) -> Path:
    """Replaces `boards/<suite>/` by the tables, page, plots, spec and provenance of a run.

    Of prompts and references, the page keeps those of the sets that spec.yaml marks
    `redistribute: true`; no other file holds any.

    With `trials`, also the small files of the finished trials, for `kdbench run --accept`.

    Raises:
        UserError: the run has no leaderboard yet, or lacks trials that the board holds; or the
            board would show paths of this machine.
    """
    from kdbench.report.page import withhold

    missing = [name for name in (*TABLES, PAGE) if not (run.path / name).exists()]
    if missing:
        raise UserError(
            f"{run.path}: {', '.join(missing)} missing; finish the run, then `kdbench report` it"
        )
    suite = run.spec.shared.suite
    check_suite(suite)
    free = {name for name, split in suite.data.evaluation.items() if split.redistribute}
    target = boards / suite.name
    check_nothing_is_lost(run, target, run.spec.shared, trials=trials)
    with store.new_folder(target) as folder:
        for name in (*TABLES, *(name for name in EVIDENCE if (run.path / name).exists())):
            shutil.copyfile(run.path / name, folder / name)
        page = (run.path / PAGE).read_text(encoding="utf-8")
        store.write_text(folder / PAGE, withhold(page, free))
        if (run.path / "plots").is_dir():
            shutil.copytree(run.path / "plots", folder / "plots")
        if trials:
            store.write_bytes(folder / ARCHIVE, pack(run))
        check_board(folder)
    return target


def check_nothing_is_lost(
    run: Run, target: Path, shared: Shared, *, trials: bool, coming: Collection[TrialFiles] = ()
) -> None:
    """Refuses to replace trials of the same settings that are only in the board `target`.

    Args:
        trials: whether the finished trials are published too.
        coming: trials that will be finished by then.

    Raises:
        UserError: naming those that would be lost.
    """
    store.sweep(target.parent)  # a killed command may have set the board aside
    board = Run(target)
    if not (target / ARCHIVE).exists() or differences(board.spec.shared, shared):
        return
    kept = {key_of(trial) for trial in (*run.finished(), *coming)} if trials else set()
    if lost := sorted(unpack(target / ARCHIVE).keys() - kept):
        advice = (
            f"`kdbench run ... --accept {target}` takes those it is asked for into the run"
            if trials
            else "give --trials"
        )
        raise UserError(
            f"{target}/{ARCHIVE} holds {len(lost)} finished trials that would be lost "
            f"({', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}): {advice}, or delete "
            f"{target}/{ARCHIVE}"
        )
