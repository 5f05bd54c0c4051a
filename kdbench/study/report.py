"""A study's report: the answers to its questions, written from its runs' stored rows."""

import math
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.report.plots import to_bytes
from kdbench.report.private import check_board, check_suite
from kdbench.report.table import AVERAGE, write_csv
from kdbench.runs.folder import STUDY, Run
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL
from kdbench.study.answers import NO, OPEN, OVER_ALL, WITHIN, YES
from kdbench.study.best import SURE
from kdbench.study.design import read_design
from kdbench.study.plots import draw_study
from kdbench.study.read import Study, read_study
from kdbench.study.tables import (
    GREEDY,
    SAMPLED,
    Answers,
    answers_frame,
    best_frame,
    collect,
    distances,
)

FILES = ("study.md", "study.csv", "answers.csv", "best.csv")
RUN_TABLES = ("leaderboard.md", "leaderboard.csv", "stability.csv", "spec.yaml", "provenance.json")
"""Of each student's run, what a published study holds."""


def write_study(path: Path) -> tuple[Study, Answers]:
    """Writes `study.{md,csv}`, `{answers,best}.csv` and `plots/` into a study's folder.

    Raises:
        UserError: no training seed is finished for all variants of any student.
    """
    study = read_study(path)
    answers = collect(study)
    figures = draw_study(study, answers.frame, answers.sampled_best)
    for name, figure in figures.items():
        store.write_bytes(path / "plots" / f"{name}.png", to_bytes(figure, "png"))
    write_csv(path / "study.csv", answers.frame)
    write_csv(path / "answers.csv", answers_frame(answers))
    write_csv(path / "best.csv", best_frame(study, answers.best))
    store.write_text(path / "study.md", study_markdown(study, answers, list(figures)))
    return study, answers


def publish_study(path: Path, boards: Path) -> Path:
    """Replaces `boards/<study>/` by the report, plots and design of a study, and its runs' tables.

    No file holds a prompt, a reference or an answer.

    Raises:
        UserError: the study or one of its runs has no report yet, or there is a suite's board of
            that name.
    """
    path = path.resolve()  # so that `.` has a name
    target = boards / path.name
    if target.exists() and not (target / STUDY).exists():
        raise UserError(f"{target} is the board of a suite; give the study another --name")
    students = list(read_design(path).students)
    wanted = [*FILES, *(f"{student}/{name}" for student in students for name in RUN_TABLES)]
    if missing := [name for name in wanted if not (path / name).exists()]:
        raise UserError(
            f"{path}: {', '.join(missing)} missing; finish the study: give its command again"
        )
    for student in students:
        check_suite(Run(path / student).spec.shared.suite)
    with store.new_folder(target) as folder:
        for name in (STUDY, *wanted):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path / name, folder / name)
        shutil.copytree(path / "plots", folder / "plots")
        check_board(folder)
    return target


def study_markdown(study: Study, answers: Answers, plots: Sequence[str]) -> str:
    """The study as Markdown, with the files of these names in `plots/`."""
    frame, n = answers.frame, len(study.seeds)
    special = [item for item in answers.special if item.metric == SAMPLED]
    widths = [(x.ci_high - x.ci_low) / 2 for x in special if not math.isnan(x.ci_low)]
    shares = frame[(frame["metric"] == "clipped_share") & (frame["role"] == "grid")]["mean"]
    made = {name: Run(study.path / name).provenance.commands for name in study.students}
    return render(
        "study/study.md",
        **_told(study, answers),
        agreements=answers.sampled_best,
        sure=SURE,
        n_diverged=frame.drop_duplicates(["student", "variant"])["n_diverged"].sum(),
        gaps={student: _gap(study, frame, student) for student in study.students},
        width=float(np.median(widths)) if widths else math.nan,
        smallest_p=smallest_sign_flip_p(n) if n > 1 else math.nan,
        level=LEVEL,
        clipped=(math.nan, math.nan) if shares.isna().all() else (shares.min(), shares.max()),
        plots=plots,
        made=[(name, entry) for name, entries in made.items() for entry in entries],
    )


def short_answers(study: Study, answers: Answers) -> list[str]:
    """The answers alone, a line each, for the console."""
    return render("study/answers.txt", **_told(study, answers)).splitlines()


def _told(study: Study, answers: Answers) -> dict[str, Any]:
    """What both the report and the console tell."""
    students = study.students
    return {
        "study": study,
        "design": study.design,
        "parameter": study.design.parameter,
        "fixed": [
            _fixed(study, answers, *asked) for asked in product(students, (WITHIN, OVER_ALL))
        ],
        "best": _best(answers),
        "special": [_special(answers, own) for own in students if study.design.comparators],
    }


def _fixed(study: Study, answers: Answers, student: str, scope: str) -> dict[str, Any]:
    """Whether a fixed value does as well as a tuned one, for one student.

    `rows`: value -> the differences on the average and on each set. `within`: the values that come
    within the interval on all sets. `gain`: the most that tuning may gain on some set over the best
    of these, NaN without one. `best`: the difference to the best fixed value, on the average.
    `verdict`: yes; no; cannot tell where no value, or every value, can be told from tuning.
    """
    asked = (student, SAMPLED, scope)
    own = [item for item in answers.fixed if (item.student, item.metric, item.scope) == asked]
    rows = {value: [item for item in own if item.subject == value] for value in study.design.values}
    on_sets = {value: [x for x in found if x.set != AVERAGE] for value, found in rows.items()}
    within = [value for value, found in on_sets.items() if all(x.verdict == YES for x in found)]
    is_open = any(item.verdict == OPEN for found in on_sets.values() for item in found)
    told = YES if 0 < len(within) < len(rows) else OPEN if within else NO
    most = [max(item.ci_high for item in on_sets[value]) for value in within]
    return {
        "student": student,
        "scope": scope,
        "rows": rows,
        "within": [] if is_open else within,
        "gain": max(min(most), 0.0) if most else math.nan,
        "best": min((x for x in own if x.set == AVERAGE), key=lambda item: item.estimate),
        "verdict": OPEN if is_open else told,
    }


def _best(answers: Answers) -> list[dict[str, Any]]:
    """Whether the best value is the same along a dimension: all students together, and each."""
    found = []
    for dimension in dict.fromkeys(item.dimension for item in answers.sampled_best):
        own = [item for item in answers.sampled_best if item.dimension == dimension]
        by_student = {item.student: item.verdict for item in own}
        told = next((word for word in (NO, OPEN) if word in by_student.values()), YES)
        about = {"dimension": dimension, "verdict": told, "by_student": by_student}
        found.append({**about, "levels": own[0].levels, "change": own[0].change})
    return found


def _special(answers: Answers, student: str) -> dict[str, Any]:
    """Whether the family beats its special cases, for one student.

    `rows`: each comparison by sampled scores, and by greedy ones where they are known. `subjects`:
    scope -> verdict -> the comparators.
    """
    own = [item for item in answers.special if item.student == student]
    greedy = {(item.scope, item.subject): item for item in own if item.metric == GREEDY}
    shown = [item for item in own if item.metric == SAMPLED]
    subjects: dict[str, dict[str, list[str]]] = {
        scope: {verdict: [] for verdict in (YES, NO, OPEN)} for scope in (WITHIN, OVER_ALL)
    }
    for item in shown:
        subjects[item.scope][item.verdict].append(item.subject)
    rows = [(item, greedy.get((item.scope, item.subject))) for item in shown]
    return {"student": student, "rows": rows, "subjects": subjects}


def _gap(study: Study, frame: pd.DataFrame, student: str) -> list[float]:
    """ROUGE-L of the initial student and of the teacher, and the initial forward KL."""
    average = frame[
        (frame["student"] == student) & (frame["set"] == AVERAGE) & (frame["metric"] == SAMPLED)
    ].set_index("variant")["mean"]
    means = [float(average.get(name, math.nan)) for name in ("initial student", "teacher")]
    logged = distances(study.trials(student, study.design.cells[0].variant)[0], "forward_kl")
    return [*means, float(logged[0]) if len(logged) else math.nan]
