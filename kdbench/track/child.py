"""Follows a run from a process of its own, so that no tracker can stop, slow or change it."""

import subprocess
import sys
from collections.abc import Callable, Sequence

from kdbench.runs.folder import Run
from kdbench.track.follow import STATE

COMMAND = (sys.executable, "-P", "-c", "from kdbench.cli import main; main()", "track")
PATIENCE = 60.0
"""Seconds without progress after which a tracker is not waited for."""


class Child:
    """`kdbench track RUN --follow`, which goes on until its standard input ends.

    That is also when this process dies, however it goes.
    """

    def __init__(self, run: Run, trackers: Sequence[str], warn: Callable[[str], None]) -> None:
        self._run, self._to, self._warn = run, ",".join(trackers), warn
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Starts to follow; the run's folder and its trials' spec.json are there."""
        if not self._to:
            return
        try:
            self._process = subprocess.Popen(
                [*COMMAND, str(self._run.path.resolve()), "--to", self._to, "--follow"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run, which ends this one in turn
            )
        except OSError as error:
            self._warn(f"the trackers could not be started: {error}")

    def end(self) -> None:
        """Waits until everything is sent, for as long as something is."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        sent = self._sent()
        try:
            while not _has_ended(self._process):
                before, sent = sent, self._sent()
                if sent == before:
                    self._warn(
                        f"the trackers took nothing for {PATIENCE:.0f} s and are not waited for; "
                        f"`kdbench track {self._run.path} --to {self._to}` sends the rest"
                    )
                    break
            if (self._process.returncode or 0) < 0:
                self._warn(f"the trackers' process was killed (signal {-self._process.returncode})")
        finally:
            self._process.terminate()

    def _sent(self) -> float:
        """When something was last sent."""
        states = (files.path / STATE for files in self._run.trials())
        return max((path.stat().st_mtime for path in states if path.exists()), default=0.0)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    return True
