"""Runs a graph of tasks on this machine, as many side by side as there are lanes.

A lane is one core's worth of work: a process that trains and scores, and one for vLLM, never both
at once. Both live as long as the run, so that torch is imported once and vLLM once per lane.
Leaving vLLM to a process of its own keeps its thread settings out of training.
"""

import errno
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Literal

from kdbench.base.code import rooms_bytes, rooms_digest
from kdbench.base.errors import UserError
from kdbench.base.process import changes, process_state, seed_generators
from kdbench.base.seeds import derive

Worker = Literal["work", "generate"]
"""A lane's process for training and scoring, or the one for vLLM."""
Event = tuple[str, Mapping[str, float]]
"""A task's name and what it reports about its progress."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
SPAWN = multiprocessing.get_context("spawn")
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # two threads on two busy cores are ten times slower than one
    # Large buffers stay with the process: the system would clear fresh pages for each of them.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # vLLM warns about NUMA at every engine
}


@dataclass(frozen=True)
class Task:
    """A function to call in a worker process, and the names of the tasks it has to wait for."""

    name: str
    worker: Worker
    call: Callable[..., None]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    reports: bool = False
    """Takes a `progress` function as its last argument."""
    objective: str = ""
    """The one whose code it runs: what that changes for its process meets no other task."""


@dataclass(frozen=True)
class Failure:
    """A task that raised."""

    task: Task
    error: BaseException
    traceback: str = ""

    @property
    def is_mendable(self) -> bool:
        """Whether the person at the keyboard can mend it."""
        return isinstance(self.error, UserError) or self._lacks_space

    @property
    def reason(self) -> str:
        """What went wrong; of a user's mistake the message alone."""
        if isinstance(self.error, UserError):
            return str(self.error)
        if self._lacks_space:
            return "the disk is full; free some space, what is done stays done"
        return f"{type(self.error).__name__}: {self.error}"

    @property
    def _lacks_space(self) -> bool:
        return isinstance(self.error, OSError) and self.error.errno in NO_SPACE


@dataclass(frozen=True)
class _Ended:
    """How a task ended in its worker, and what it has left changed there."""

    error: BaseException | None
    traceback: str
    changed: tuple[str, ...]


class _Lane:
    def __init__(self, events: "Queue[Event]") -> None:
        self.events = events
        self._workers: dict[str, ProcessPoolExecutor] = {}

    def submit(self, task: Task, plugins: Sequence[Path]) -> "Future[_Ended]":
        try:
            # Its arguments may name a plugin's objectives, which are not there before it is loaded.
            return self._worker(task.worker).submit(
                _call, pickle.dumps(task), plugins, (rooms_bytes(), rooms_digest())
            )
        except BrokenProcessPool:  # it died while it had nothing to do
            self.replace(task.worker)
            return self.submit(task, plugins)

    def start(self) -> None:
        """Starts the process that trains, which imports what it will need."""
        self._worker("work").submit(_import_training)

    def _worker(self, kind: str) -> ProcessPoolExecutor:
        if kind not in self._workers:
            self._workers[kind] = ProcessPoolExecutor(
                max_workers=1,
                mp_context=SPAWN,
                initializer=_start_worker,
                initargs=(self.events, os.getpid()),
            )
        return self._workers[kind]

    def replace(self, worker: str) -> None:
        """Ends a process where it has not died, so that the next task gets a new one."""
        self._workers.pop(worker).shutdown(wait=False)

    def close(self) -> None:
        for executor in self._workers.values():
            executor.shutdown(wait=True, cancel_futures=True)


def _kill_workers() -> None:
    """Ends the workers at once: what they were writing is made again, from the last checkpoint."""
    for process in multiprocessing.active_children():
        process.kill()


_early: "_Lane | None" = None
"""Started by `early_worker`, until `execute` takes it."""


@contextmanager
def early_worker() -> Iterator[None]:
    """Starts a worker at once, to import torch and transformers while this process still plans.

    It becomes the first lane of the next `execute`. Where there is none, as after a user's mistake,
    it is ended without waiting for it.
    """
    global _early
    before = dict(os.environ)
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        _early = _Lane(SPAWN.Queue())
        _early.start()
    finally:  # this process keeps its own, such as the progress bars of downloads
        for name in WORKER_ENVIRONMENT.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    try:
        yield
    finally:
        end_early_worker()


def end_early_worker() -> None:
    """Ends the worker of `early_worker`, if no `execute` has taken it."""
    if (lane := _take_early()) is not None:
        _kill_workers()
        lane.close()


def _take_early() -> "_Lane | None":
    global _early
    lane, _early = _early, None
    return lane


def execute(
    tasks: Sequence[Task],
    *,
    lanes: int,
    plugins: Sequence[Path],
    on_event: Callable[[str, Mapping[str, float]], None],
    on_done: Callable[[Task, float], None],
    on_changed: Callable[[Task, Sequence[str]], None] = lambda task, changed: None,
) -> list[Failure]:
    """Runs tasks in the order given, as far as what they need is done.

    Later stages of a trial should stand before the first stages of the next, so that a student is
    scored soon after it is trained. Names are unique; what a task needs and is not among the tasks
    counts as done. Every worker imports the plugins. `on_event` gets what tasks report, `on_done`
    every task that ended well and its seconds, `on_changed` one that left its process changed
    (which is then replaced) and what it changed, all in this process.

    Returns the tasks that raised; those that needed them were left out.
    """
    if not tasks:
        return []
    os.environ.update(WORKER_ENVIRONMENT)
    first = _take_early() or _Lane(SPAWN.Queue())
    events = first.events
    pool = [first, *(_Lane(events) for _ in range(1, lanes))]
    free, running = list(pool), dict[Future[_Ended], tuple[Task, _Lane, float]]()
    waiting = {task.name: task for task in tasks}
    failures: list[Failure] = []
    try:
        while waiting or running:
            unfinished = waiting.keys() | {task.name for task, _, _ in running.values()}
            ready = [task for task in waiting.values() if not unfinished & set(task.needs)]
            for task in ready[: len(free)]:
                lane = free.pop(0)
                running[lane.submit(task, plugins)] = (task, lane, time.monotonic())
                del waiting[task.name]
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            with suppress(queue.Empty):
                while True:
                    on_event(*events.get_nowait())
            for future in finished:
                task, lane, begun = running.pop(future)
                free.append(lane)
                ended = _ending(future)
                if ended.changed:
                    on_changed(task, ended.changed)
                if ended.changed or isinstance(ended.error, BrokenProcessPool):
                    lane.replace(task.worker)
                if ended.error is None:
                    on_done(task, time.monotonic() - begun)
                    continue
                failures.append(Failure(task, ended.error, ended.traceback))
                _drop_dependents(waiting, task.name)
        return failures
    except BaseException:
        _kill_workers()
        raise
    finally:
        for lane in pool:
            lane.close()


def _ending(future: "Future[_Ended]") -> _Ended:
    """How a task ended, in its worker or with it."""
    error = future.exception()
    return future.result() if error is None else _Ended(error, str(error.__cause__ or ""), ())


def _drop_dependents(waiting: dict[str, Task], failed: str) -> None:
    lost = [task.name for task in waiting.values() if failed in task.needs]
    for name in lost:
        del waiting[name]
        _drop_dependents(waiting, name)


_events: "Queue[Event] | None" = None
_plugins: set[Path] = set()


def _start_worker(events: "Queue[Event]", parent: int) -> None:
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _import_training() -> None:
    gc.disable()  # modules stay: it would find nothing in them, and take a tenth of the time
    try:
        import transformers.modeling_utils  # noqa: F401 - most of what any model imports

        import kdbench.train.loop  # noqa: F401
    finally:
        gc.enable()


def _die_with(parent: int) -> None:
    """Ends this process when its parent is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _call(pickled: bytes, plugins: Sequence[Path], rooms: tuple[str, str]) -> _Ended:
    from kdbench.variants.select import load_plugin

    if rooms_bytes() != rooms[0] and rooms_digest() != rooms[1]:
        raise UserError(
            "the code of kdbench was changed after the run started; give the command again"
        )
    for path in plugins:
        if path not in _plugins:
            load_plugin(path.resolve())
            _plugins.add(path)
    task: Task = pickle.loads(pickled)
    if not task.objective:
        _do(task)
        return _Ended(None, "", ())
    _import_training()  # now, since an import changes what is compared
    seed_generators(derive("task", task.name))
    before, error, trace = process_state(), None, ""
    try:
        _do(task)
    except BaseException as raised:  # also what would end the process
        error, trace = _portable(raised), "".join(traceback.format_exception(raised))
    return _Ended(error, trace, _changed(before))


def _changed(before: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(changes(before, process_state()))
    except Exception as error:  # what it needs itself is changed
        return (f"what a look at the process needs ({type(error).__name__}: {error})",)


def _portable(error: BaseException) -> BaseException:
    """An error, or its words where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _do(task: Task) -> None:
    if not task.reports:
        task.call(*task.arguments)
        return
    last = 0.0

    def progress(row: Mapping[str, float]) -> None:
        nonlocal last
        if _events is not None and time.monotonic() - last > 0.5:
            last = time.monotonic()
            _events.put((task.name, dict(row)))

    task.call(*task.arguments, progress)
