"""Writes a study's report from its runs' stored rows, and copies what is small enough to commit."""

import shutil
from pathlib import Path

import pandas as pd

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.report.plots import to_bytes
from kdbench.runs.folder import STUDY
from kdbench.study.collect import SAMPLED, Answers, collect
from kdbench.study.design import read_design
from kdbench.study.plots import draw_study
from kdbench.study.read import Study, read_study
from kdbench.study.table import answers_frame, best_frame
from kdbench.study.text import study_markdown

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
    figures = draw_study(study, answers.frame, [a for a in answers.best if a.metric == SAMPLED])
    for name, figure in figures.items():
        store.write_bytes(path / "plots" / f"{name}.png", to_bytes(figure, "png"))
    asked = [
        answers_frame(answers.fixed, "tuned over fixed"),
        answers_frame(answers.special, "family over special case"),
    ]
    _write_csv(path / "study.csv", answers.frame)
    _write_csv(path / "answers.csv", pd.concat([frame for frame in asked if len(frame)]))
    _write_csv(path / "best.csv", best_frame(study, answers.best))
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
    with store.new_folder(target) as folder:
        for name in (STUDY, *wanted):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path / name, folder / name)
        shutil.copytree(path / "plots", folder / "plots")
    return target


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    store.write_text(path, frame.to_csv(index=False, lineterminator="\n"))
