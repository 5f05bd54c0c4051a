"""Progress of a run: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from kdbench.base.plain import printable
from kdbench.cli.echo import echo
from kdbench.launch.local import Failure, Task
from kdbench.pipeline.trial import Trial
from kdbench.runs.folder import Run

LINE_SECONDS = 15.0
"""Between two plain lines about the same training."""


def print_failures(failures: Sequence[Failure]) -> None:
    """One line on stderr for each task that failed; of a trial, with where its traceback lies."""
    for failure in failures:
        trace = "" if failure.is_mendable else _traceback_of(failure.task)
        echo(f"Failed: {failure.task.name}: {failure.reason}{trace}", err=True)


def end_with(failures: Sequence[Failure]) -> None:
    """Ends the command where anything failed: with 2 if the user can mend all of it, else 1."""
    if failures:
        count = "1 task" if len(failures) == 1 else f"{len(failures)} tasks"
        text = f"{count} failed (see above); what is done stays done, the same command goes on"
        echo(f"Error: {text}", err=True)
        sys.exit(2 if all(failure.is_mendable for failure in failures) else 1)


def _traceback_of(task: Task) -> str:
    """Where a trial's traceback lies; nothing of a task that belongs to no trial."""
    trial = next((each for each in task.arguments if isinstance(each, Trial)), None)
    run = next((each for each in task.arguments if isinstance(each, Run)), None)
    if trial is None or run is None:
        return ""
    return f" (traceback in {trial.files(run).path / 'FAILED.json'})"


class Progress:
    """What `kdbench.pipeline.run.run` reports to.

    `on_begin` is called when the run's folder is laid out, `on_done` with every task that ended.
    """

    def __init__(
        self,
        on_begin: Callable[[], None] = lambda: None,
        on_done: Callable[[Task], None] = lambda _: None,
    ) -> None:
        self._on_begin, self._on_done = on_begin, on_done
        self._begun = time.monotonic()
        self._tasks, self._done = 0, 0
        self._printed: dict[str, float] = {}
        self._first: dict[str, tuple[float, float]] = {}
        self._rows: dict[str, TaskID] = {}
        self._bars: Bars | None = None
        if Console().is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), transient=True
            )

    def __enter__(self) -> "Progress":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, tasks: int) -> None:
        """The number of tasks of the run is known."""
        self._tasks = tasks
        self._on_begin()
        if self._bars is not None:
            self._rows[""] = self._bars.add_task("run", total=tasks)
        elif tasks == 0:
            echo("nothing to do: all trials are done")

    def event(self, name: str, row: Mapping[str, float]) -> None:
        """A training reports a step."""
        now = time.monotonic()
        began, first_step = self._first.setdefault(name, (now, row["step"]))
        steps_done = row["step"] - first_step
        pace = (now - began) / steps_done if steps_done else 0.0
        left = f", {pace * (row['steps'] - row['step']):.0f} s left" if pace else ""
        rate = f"{row['tokens'] / row['seconds']:,.0f} tokens/s" if row.get("seconds") else ""
        text = f"{name}: loss {row['loss']:.4f}, {rate}{left}"
        if self._bars is not None:
            if name not in self._rows:
                self._rows[name] = self._bars.add_task(text, total=int(row["steps"]))
            self._bars.update(self._rows[name], description=text, completed=int(row["step"]))
        elif now - self._printed.get(name, began) > LINE_SECONDS:
            self._printed[name] = now
            echo(f"  {text}, step {row['step']:.0f}/{row['steps']:.0f}")

    def done(self, task: Task, seconds: float) -> None:
        """A task ended well."""
        self._done += 1
        if self._bars is not None:
            if task.name in self._rows:
                self._bars.remove_task(self._rows.pop(task.name))
            self._bars.update(self._rows[""], completed=self._done)
        else:
            elapsed = time.monotonic() - self._begun
            done = f"{self._done}/{self._tasks} {task.name} ({seconds:.1f} s)"
            echo(f"[{elapsed:6.1f} s] {done}")
        self._on_done(task)

    def say(self, text: str, *, warning: bool = False) -> None:
        """A line that stays; a warning goes to stderr where there are no bars."""
        text = printable(f"WARNING: {text}" if warning else text)
        if self._bars is not None:
            self._bars.console.print(text, style="bold red" if warning else None, markup=False)
        else:
            echo(text, err=warning)
