"""report.json, written last: what a report was computed from, and the files that it consists of."""

from importlib.metadata import version
from pathlib import Path

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.seal import quick_digest
from kdbench.runs.folder import Run

STAMP = "report.json"
TABLES = (
    "leaderboard.csv",
    "leaderboard.md",
    "leaderboard.tex",
    "stability.csv",
    "cost.csv",
    "spec.yaml",
    "provenance.json",
)
EVIDENCE = (
    "stability.md",
    "spikes.csv",
    "stability_comparisons.csv",
    "evidence.md",
    "ranks.csv",
    "comparisons.csv",
    "variance.csv",
    "tuning.md",
    "tuning.csv",
    "tuning.json",
    "lr-sensitivity.md",
    "lr-sensitivity.csv",
)
"""Written only where there is something to compare."""
PAGE = "leaderboard.html"


def sources(run: Run) -> dict[str, str]:
    """Digests of all that a report is computed from, and the version that computes it.

    DONE.json vouches for a trial's scores and log, and each file of answers has a digest beside it.
    """
    paths = [run.path / name for name in ("spec.yaml", "provenance.json", "tuning.json")]
    paths += sorted(run.path.glob("samples/*.jsonl"))
    trials = [path for place in (run.path, run.path / "tuning") for path in _ended(place)]
    for trial in trials:
        paths += [
            trial / "spec.json",
            trial / "DONE.json",
            *sorted(trial.glob("generations/*.xxh3")),
        ]
    return {"kdbench": version("kdbench"), **_digests(run, paths)}


def clear_stamp(run: Run) -> None:
    """Takes the stamp away: what is written from here on is no report before it is whole."""
    (run.path / STAMP).unlink(missing_ok=True)


def write_stamp(run: Run, computed_from: dict[str, str]) -> None:
    """Says of a report that has just been written what it consists of."""
    written = [run.path / name for name in (*TABLES, *EVIDENCE, PAGE)]
    written += sorted(run.path.glob("plots/*"))
    report = {"computed_from": computed_from, "files": _digests(run, written)}
    store.write_json(run.path / STAMP, report)


def is_current(run: Run) -> bool:
    """Whether the report is whole and of what the run's folder holds now."""
    path = run.path / STAMP
    try:
        stamp = store.read_json(path) if path.exists() else {}
    except UserError:
        return False
    files = stamp.get("files")
    if not isinstance(files, dict) or not files or stamp.get("computed_from") != sources(run):
        return False
    return _digests(run, [run.path / name for name in files]) == files


def _ended(run: Path) -> list[Path]:
    return [path.parent for path in sorted(run.glob("trials/*/*/DONE.json"))]


def _digests(run: Run, paths: list[Path]) -> dict[str, str]:
    present = (path for path in paths if path.is_file())
    return {path.relative_to(run.path).as_posix(): quick_digest(path) for path in present}
