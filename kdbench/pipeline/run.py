"""A plan's trials -> stages, in order, resumable: what exists is not made again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kdbench.base import store
from kdbench.data.records import foreign, framed, spaced, splits_of
from kdbench.launch.local import Failure, Task, Worker, execute
from kdbench.pipeline import provenance
from kdbench.pipeline.accept import accept, judge, tell, unlike
from kdbench.pipeline.artifacts import Artifacts, Role
from kdbench.pipeline.build import (
    answer_with_teacher,
    cache_answers,
    cache_teacher,
    is_prepared,
    make_model,
    prepare,
)
from kdbench.pipeline.mend import mend_artifacts, mend_scores, mend_trial
from kdbench.pipeline.plan import Plan, check_same_run, check_trials, write_spec
from kdbench.pipeline.trial import (
    Trial,
    claim,
    generate_answers,
    initial_student,
    score_answers,
    train_trial,
)
from kdbench.runs.folder import Run
from kdbench.runs.samples import samples_file

ANSWERS = "teacher's answers cache"


class Display(Protocol):
    """Shows how a run goes."""

    def begin(self, tasks: int) -> None: ...

    def event(self, name: str, row: Mapping[str, float]) -> None: ...

    def done(self, task: Task, seconds: float) -> None: ...

    def say(self, text: str, *, warning: bool = False) -> None: ...


def run(plan: Plan, display: Display, board: Path | None = None) -> list[Failure]:
    """Runs what is not done yet, and what a published board lacks where one is given.

    Returns the tasks that failed, whoever has to mend it; the trials that needed them stay open,
    and the folders of those that failed themselves say why in FAILED.json.

    Raises:
        UserError: another command is working on the same run, or the plan does not fit its folder.
    """
    plan.run.path.mkdir(parents=True, exist_ok=True)
    busy = f"{plan.run.path}: another command is working on this run"
    with store.locked(plan.run.path / ".lock", busy):
        begun = time.time()
        store.sweep(plan.run.path)
        check_same_run(plan)
        check_trials(plan)
        offer = None if board is None else judge(plan, board)
        write_spec(plan)
        write_samples(plan.run, plan.artifacts)
        if offer is not None:
            accept(plan, offer)
            for line in tell(offer):
                display.say(line)
        for trial in plan.trials:
            claim(trial, plan.run)
        for text in _mend(plan):
            display.say(text, warning=True)
        todo = [trial for trial in plan.trials if trial.files(plan.run).done is None]
        if todo:
            provenance.begin(plan, begun)
            for text in _remarks(plan.artifacts):
                display.say(text, warning=True)
        tasks = open_tasks(plan, todo)
        display.begin(len(tasks))

        def warn_if_unlike(name: str) -> None:
            if text := unlike(plan, name):
                display.say(text, warning=True)

        def on_done(task: Task, seconds: float) -> None:
            display.done(task, seconds)
            if task.call is make_model:
                warn_if_unlike(task.name)

        def on_changed(task: Task, changed: Sequence[str]) -> None:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            display.say(
                f"the objective {task.objective} changes {', '.join(changed[:5])}{more} for its "
                f"whole process ({task.name}), and its own training may have run so; the process "
                "was replaced, no other trial is touched",
                warning=True,
            )

        for name, role, init_seed in _models(plan) if todo else ():
            if plan.artifacts.weights_digest(role, init_seed).exists():
                warn_if_unlike(name)
        failures = execute(
            tasks,
            lanes=plan.jobs,
            plugins=plan.plugins,
            on_event=display.event,
            on_done=on_done,
            on_changed=on_changed,
        )
        finished = [trial for trial in todo if trial.files(plan.run).done is not None]
        if todo:
            provenance.finish(plan, time.time() - begun, len(finished))
        _explain(plan, todo, failures)
        return failures


def _remarks(artifacts: Artifacts) -> Iterator[str]:
    """What a reader of the scores should know of the records and of a given tokenizer."""
    data = artifacts.suite.data
    for name, split in splits_of(data).items():
        records = artifacts.records(split)
        yield from framed(name, records)
        yield from foreign(name, records) if name in data.evaluation else spaced(name, records)
    if artifacts.tokenizer_source is not None:
        from kdbench.data.tokenizer import tokenizer_remarks

        yield from tokenizer_remarks(artifacts.tokenizer_source, data)


def _mend(plan: Plan) -> Iterator[str]:
    """Removes what is damaged of all that the plan would read; says what it was."""
    every = [trial.files(plan.run) for trial in plan.trials]
    for files in every:
        if files.done is not None:
            yield from mend_scores(files)
    todo = [files for files in every if files.done is None]
    if todo:
        models = [(role, seed) for _, role, seed in _models(plan)]
        yield from mend_artifacts(plan.artifacts, models)
    for files in todo:
        yield from mend_trial(files)


def open_tasks(plan: Plan, todo: list[Trial]) -> list[Task]:
    """The tasks of some trials, and of what they share as far as the cache lacks it."""
    if not todo:
        return []
    artifacts, micro_batch = plan.artifacts, plan.micro_batch
    tasks = [Task("prepare", "work", prepare, (artifacts,))]
    students = {trial.init_seed for trial in todo if trial.role == "student"}
    for name, role, init_seed in _models(plan):
        if role == "teacher" or init_seed in students:
            make = (artifacts, role, init_seed, micro_batch)
            tasks.append(Task(name, "work", make_model, make, ("prepare",), reports=True))
    # Every trial needs it, sft too: all logs hold the same distances to the teacher.
    tasks.append(Task("teacher cache", "work", cache_teacher, (artifacts,), ("teacher",)))
    if any(_needs_answers(trial) for trial in todo):
        name, arguments = "teacher's answers", (artifacts, plan.shared)
        tasks += [
            Task(name, _answering(plan), answer_with_teacher, arguments, ("teacher",)),
            Task(ANSWERS, "work", cache_answers, arguments, (name,)),
        ]
    made = _made(plan)
    tasks = [task for task in tasks if task.name not in made]
    trials = [trial for trial in todo if trial.variant is not None]
    references = [trial for trial in todo if trial.variant is None]
    # Not first: generation is slow to start, and training would wait for it.
    for trial in (*trials[: plan.jobs], *references, *trials[plan.jobs :]):
        tasks += _trial_tasks(plan, trial)
    return tasks


def _models(plan: Plan) -> list[tuple[str, Role, int]]:
    """Name, role and seed of the teacher and of every initial student."""
    students: list[tuple[str, Role, int]] = [
        (initial_student(seed), "student", seed) for seed in range(plan.init_seeds)
    ]
    return [("teacher", "teacher", 0), *students]


def _made(plan: Plan) -> set[str]:
    """The tasks whose results lie in the cache: without them, a trial starts at once."""
    artifacts, shared = plan.artifacts, plan.shared
    made = {
        name for name, role, seed in _models(plan) if artifacts.weights_digest(role, seed).exists()
    }
    if is_prepared(artifacts):
        made.add("prepare")
    if "teacher" in made:
        answers = artifacts.teacher_answers(shared.backend, shared.backend_version)
        places = {
            "teacher cache": artifacts.teacher_cache,
            "teacher's answers": answers,
            ANSWERS: answers / "cache",
        }
        made |= {name for name, place in places.items() if place.exists()}
    return made


def _answering(plan: Plan) -> Worker:
    """Only vLLM needs a process of its own; what transformers imports, training has imported."""
    return "generate" if plan.shared.backend == "vllm" else "work"


def _needs_answers(trial: Trial) -> bool:
    return trial.variant is not None and trial.variant.sequences.teacher_answers


def _trial_tasks(plan: Plan, trial: Trial) -> list[Task]:
    name = student = trial.label
    answers, given = f"generate {name}", (plan.artifacts, trial, plan.run)
    tasks = []
    if trial.variant is not None:
        student = f"train {name}"
        own = (ANSWERS,) if _needs_answers(trial) else ()
        needs = (initial_student(trial.init_seed), "teacher cache", *own)
        arguments = (*given, plan.shared, plan.micro_batch, plan.compile)
        objective = trial.variant.objective.name
        tasks.append(Task(student, "work", train_trial, arguments, needs, True, objective))
    generating = (*given, plan.shared)
    return [
        *tasks,
        Task(answers, _answering(plan), generate_answers, generating, (student,)),
        Task(f"score {name}", "work", score_answers, given, (answers,)),
    ]


def _explain(plan: Plan, todo: list[Trial], failures: list[Failure]) -> None:
    for failure in failures:
        for trial in todo:
            if trial in failure.task.arguments:
                entry = {"stage": failure.task.name, "error": failure.reason}
                entry["traceback"] = failure.traceback
                with suppress(OSError):  # the disk may be what is full
                    store.write_json(trial.files(plan.run).path / "FAILED.json", entry)


def write_samples(run: Run, artifacts: Artifacts) -> None:
    """Writes `samples/<set>.jsonl` of every evaluation set, where it is not there as it should be.

    The folder of a run is local; `kdbench publish` leaves out the records of the sets that are
    marked `redistribute: false`.
    """
    for name, split in artifacts.suite.data.evaluation.items():
        path = samples_file(run, name)
        text = "".join(
            store.dump_line(
                {"text": [record.instruction, record.input], "references": record.outputs}
            )
            for record in artifacts.records(split)
        )
        if not path.exists() or path.read_bytes() != text.encode("utf-8"):
            store.write_text(path, text)
