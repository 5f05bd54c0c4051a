"""The one hook: from the files of a run's trials to any number of trackers."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdbench.base.store import read_json, read_jsonl, write_json
from kdbench.runs.folder import Run, TrialFiles
from kdbench.runs.results import DIAGNOSTICS, read_trial
from kdbench.track import Session, Subject, open_session

AT_ONCE = 50
"""Steps that are sent in one piece."""
STATE = "tracking.json"
"""In a trial's folder: per tracker, its `id` there, the last `step` sent, and whether it `ended`.

It goes when the folder is deleted to run the trial again, so that a new one is tracked as new.
"""


class Follower:
    """Sends what is new in a run's folder, each time it is asked to.

    Steps are marked as sent before they are: if the process is killed in between, the tracker lacks
    them, but none is ever there twice. A tracker that raises is warned of and left alone from then
    on; what it has not taken stays to be sent by another follower.
    """

    def __init__(self, run: Run, trackers: Sequence[str], warn: Callable[[str], None]) -> None:
        self._run, self._warn = run, warn
        self._lines = {tracker: _Line(run, tracker) for tracker in trackers}

    @property
    def alive(self) -> list[str]:
        """The trackers that have not failed."""
        return list(self._lines)

    def poll(self) -> None:
        """Sends the new rows of all trials, and closes the trials that have ended."""
        trials = self._run.trials()
        self._each(lambda line: line.send_all(trials))

    def close(self) -> None:
        """Closes, in the trackers, the trials that have not ended."""
        self._each(lambda line: line.close())

    def _each(self, call: Callable[["_Line"], None]) -> None:
        for tracker, line in list(self._lines.items()):
            try:
                call(line)
            except Exception as error:  # whatever it is, the run goes on
                del self._lines[tracker]
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._warn(
                    f"tracker {tracker} failed and gets nothing more ({reason}); the run is not "
                    f"touched, and `kdbench track {self._run.path} --to {tracker}` sends the rest"
                )


class _Line:
    """One tracker, with the trials that are open in it."""

    def __init__(self, run: Run, tracker: str) -> None:
        self._run, self._tracker = run, tracker
        self._open: dict[Path, Session] = {}
        self._seen: dict[Path, tuple[int, int]] = {}

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].end("open", {}, 0)

    def send_all(self, trials: Sequence[TrialFiles]) -> None:
        for files in trials:
            self._send(files)

    def _send(self, files: TrialFiles) -> None:
        state = _states(files).get(self._tracker, {"id": None, "step": 0, "ended": False})
        if state["ended"]:
            return
        done = files.done  # before the rows, so that those of a trial that is done are all there
        found = _stamp(files.train_log)
        changed = found is not None and found != self._seen.get(files.path)
        rows = read_jsonl(files.train_log) if changed else []
        rows = [row for row in rows if row["step"] > state["step"]]
        if done is None and not rows:
            return
        session = self._session(files, state)
        for start in range(0, len(rows), AT_ONCE):
            part, before = rows[start : start + AT_ONCE], state["step"]
            self._mark(files, state | {"step": part[-1]["step"]})
            try:
                session.log([(row["step"], figures_of(row)) for row in part])
            except Exception:
                self._mark(files, state | {"step": before})
                raise
            state["step"] = part[-1]["step"]
        if found is not None:  # only now: what Ctrl-C left unsent is still new to the last look
            self._seen[files.path] = found
        if done is not None:
            session.end(done.status, final_figures(files), state["step"])
            del self._open[files.path]
            self._mark(files, state | {"ended": True})

    def _session(self, files: TrialFiles, state: dict[str, Any]) -> Session:
        if files.path not in self._open:
            session = open_session(self._tracker, _subject(self._run, files), state["id"])
            self._open[files.path] = session
            state["id"] = session.id
            self._mark(files, state)
        return self._open[files.path]

    def _mark(self, files: TrialFiles, state: dict[str, Any]) -> None:
        write_json(files.path / STATE, _states(files) | {self._tracker: state})


def _subject(run: Run, files: TrialFiles) -> Subject:
    spec = files.spec
    seeds = [] if spec.reference else [f"seed {spec.seed}"]
    if spec.init_seed:
        seeds.append(f"initial student {spec.init_seed}")
    return Subject(
        run=run.path,
        folder=files.path.relative_to(run.path / "trials").as_posix(),
        name=" ".join([spec.variant, *seeds]),
        config={
            "trial": spec.model_dump(mode="json"),
            "shared": run.spec.shared.model_dump(mode="json"),
        },
    )


def figures_of(row: dict[str, Any]) -> dict[str, float]:
    """The finite figures of a step: `train/...`, and `dev/...` for those on the dev batch."""
    found = {}
    for key, value in row.items():
        if key != "step" and isinstance(value, int | float) and math.isfinite(value):
            is_on_dev = key.startswith("dev_") or key in DIAGNOSTICS
            found[f"dev/{key.removeprefix('dev_')}" if is_on_dev else f"train/{key}"] = float(value)
    return found


def final_figures(files: TrialFiles) -> dict[str, float]:
    """The leaderboard's figures of one trial: `final/<set>/<metric>`, the average included."""
    trial = read_trial(files)
    sets = sorted({name for name, _ in trial.values})
    metrics = dict.fromkeys(metric for _, metric in trial.values)
    columns = {"average": sets} | {name: [name] for name in sets}
    return {
        f"final/{column}/{metric}": trial.figure(members, metric)
        for column, members in columns.items()
        for metric in metrics
        if all((name, metric) in trial.values for name in members)
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None where there is none."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None


def _states(files: TrialFiles) -> dict[str, Any]:
    path = files.path / STATE
    return read_json(path) if path.exists() else {}
