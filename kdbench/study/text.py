"""A study for people: what it is, the three answers, and what it cannot show."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from kdbench.report.render import markdown_table
from kdbench.report.table import AVERAGE
from kdbench.report.words import number
from kdbench.stats.paired import smallest_sign_flip_p
from kdbench.stats.tiers import LEVEL
from kdbench.study.answers import OVER_ALL, WITHIN
from kdbench.study.collect import SAMPLED, Answers
from kdbench.study.read import Study
from kdbench.study.table import first_distance
from kdbench.study.text_answers import (
    best_answers,
    best_section,
    fixed_answer,
    fixed_section,
    sampled,
    special_answer,
    special_section,
)
from kdbench.study.words import listed, seeds, students


def study_markdown(study: Study, answers: Answers, plots: Sequence[str]) -> str:
    """The study as Markdown.

    Args:
        study: what was read.
        answers: its numbers.
        plots: names of the files in `plots/`, without suffix.
    """
    design = study.design
    sections = (
        _what(study, answers),
        fixed_section(study, answers),
        best_section(study, answers),
        special_section(study, answers),
        _limits(study, answers),
        _plots(plots),
        _made(study),
    )
    title = f"# `{design.parameter}` of `{design.objective}` on `{design.suite}`"
    return "\n\n".join([title, *(part for section in sections for part in section)]) + "\n"


def short_answers(study: Study, answers: Answers) -> Iterator[str]:
    """The answers alone, a line each, for the console."""
    name = study.design.parameter
    for student in study.students:
        for scope in (WITHIN, OVER_ALL):
            yield (
                f"{student}: a fixed {name} as good as a tuned one, {scope}? "
                + fixed_answer(study, sampled(answers.fixed, student, scope))
            )
    own = [item for item in answers.best if item.metric == SAMPLED]
    yield from (line.replace("**", "").replace("`", "") for line in best_answers(study, own))
    for student in study.students if study.design.comparators else ():
        told = special_answer(study, sampled(answers.special, student))
        yield f"{student}: {told}".replace("`", "")


def _what(study: Study, answers: Answers) -> Iterator[str]:
    design = study.design
    grid = " x ".join(
        [
            f"`{design.parameter}` in {listed(design.values)}",
            *(f"`{name}` in {listed(levels)}" for name, levels in design.factors.items()),
        ]
    )
    yield (
        f"{grid}: {len(design.cells)} cells in {len(design.settings)} settings, "
        f"{students(study)}, {seeds(study)}. Compared with "
        f"{listed([item.label for item in design.comparators]) or 'nothing else'}. "
        "Everything below is computed from these runs' rows; study.csv has every figure, "
        "answers.csv and best.csv every answer."
    )
    notes = [f"Left out: {text}." for text in design.left_out]
    notes += [f"`{name}` has no finished seed yet and is left out." for name in study.waiting]
    diverged = answers.frame.drop_duplicates(["student", "variant"])["n_diverged"].sum()
    if diverged:
        notes.append(f"{diverged} trials diverged; they count with their last finite checkpoint.")
    if notes:
        yield "\n".join(f"* {note}" for note in notes)
    yield "\n".join(
        markdown_table(
            ["student", "ROUGE-L of the initial student", "of the teacher", "initial forward KL"],
            [_gap(study, answers.frame, student) for student in study.students],
        )
    )


def _gap(study: Study, frame: pd.DataFrame, student: str) -> list[str]:
    average = frame[
        (frame["student"] == student) & (frame["set"] == AVERAGE) & (frame["metric"] == SAMPLED)
    ].set_index("variant")["mean"]
    distance = first_distance(study.trials(student, study.design.cells[0].variant)[0], "forward_kl")
    means = [average.get(name, math.nan) for name in ("initial student", "teacher")]
    return [f"`{student}`", *(number(float(value)) for value in means), number(distance)]


def _limits(study: Study, answers: Answers) -> Iterator[str]:
    n = len(study.seeds)
    yield "## What this study cannot show"
    widths = [
        (item.ci_high - item.ci_low) / 2
        for item in answers.special
        if item.metric == SAMPLED and not math.isnan(item.ci_low)
    ]
    points = [
        f"Other models, data and tasks: it is one suite (`{study.design.suite}`), one teacher and "
        f"{students(study)}, each from one recipe. Two sizes are two points; a law of the "
        "capacity gap needs more.",
        "The intervals hold for other trainings (data orders) of the same initial students, on "
        "these prompts. `same` and W resample prompts too, and know three seeds no better.",
        "Values between and beyond those of the grid, and settings that it does not hold.",
    ]
    if widths:
        points.append(
            f"Differences below about {np.median(widths):.1f} ROUGE-L: the median half-width of "
            "the comparisons with special cases. `cannot tell` is no proof of equality."
        )
    if n > 1 and smallest_sign_flip_p(n) >= LEVEL:
        points.append(
            f"A small p without assumptions: with {n} seeds an exact sign-flip test cannot give p "
            f"below {smallest_sign_flip_p(n):.3g}; every smaller one rests on normal errors."
        )
    if clipped := _clipped(answers.frame):
        points.append(clipped)
    yield "\n".join(f"* {point}" for point in points)


def _clipped(frame: pd.DataFrame) -> str:
    shares = frame[(frame["metric"] == "clipped_share") & (frame["role"] == "grid")]["mean"]
    if shares.isna().all():
        return ""
    return (
        "What each cell would reach at its own learning rate: all share one, and the share of "
        f"clipped steps runs from {100 * shares.min():.0f} to {100 * shares.max():.0f} % over the "
        "grid, so the scale of the gradient is part of what is compared."
    )


def _plots(plots: Sequence[str]) -> Iterator[str]:
    yield "## Plots"
    yield "\n\n".join(f"![{name}](plots/{name}.png)" for name in plots)


def _made(study: Study) -> Iterator[str]:
    from kdbench.runs.folder import Run

    yield "## How it was made"
    lines = []
    for student in study.students:
        for entry in Run(study.path / student).provenance.commands:
            hardware = entry.get("hardware", {})
            changed = ", files changed since" if entry.get("dirty") else ""
            lines.append(
                f"* `{student}`: `{entry['command']}`; commit {entry.get('commit')}{changed}; "
                f"{hardware.get('cores')} cores ({hardware.get('processor')}), "
                f"{entry.get('jobs')} jobs; {entry.get('trials_done')} trials in "
                f"{entry.get('wall_seconds')} s"
            )
    yield "\n".join(lines) or "No provenance.json tells."
