"""A study's answers and report, on runs with a planted best value, or none."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kdbench.base.errors import UserError
from kdbench.study.answers import family_over_special, tuned_over_fixed
from kdbench.study.best import best_values
from kdbench.study.design import Setting
from kdbench.study.expand import Question
from kdbench.study.read import Study, read_study
from kdbench.study.report import RUN_TABLES, publish_study, short_answers, write_study
from kdbench.study.tables import collect
from tests.synthetic_study import write_study_runs

STUDENTS = ("big", "small=student.architecture.width:32")
QUESTION = Question(
    "alpha",
    values="-5,-1,1",
    by=("order=pr,qr",),
    against=("alpha=1", "sft", "alpha-beta:order=pr"),
    students=STUDENTS,
)
BEST = {"big": -5.0, "small": 1.0, "one": -5.0}


def planted(student: str, _setting: Setting, value: float) -> float:
    return 60 - 1.5 * abs(value - BEST[student])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "study-alpha"
    write_study_runs(path, QUESTION, planted, noise=0.1)
    write_study(path)
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return read_study(folder)


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = tmp_path_factory.mktemp("results") / "equal"
    write_study_runs(path, QUESTION, lambda *_: 60.0, other=60.0, noise=0.5)
    return read_study(path)


def test_a_planted_value_comes_within_the_interval_and_the_others_do_not(study: Study) -> None:
    for student in study.students:
        found = tuned_over_fixed(study, student, "rouge_l")
        within = {item.subject for item in found if item.verdict == "yes"}
        outside = {item.subject for item in found if item.verdict == "no"}
        assert within == {f"{BEST[student]:g}"}
        assert outside == set(study.design.values) - within


def test_tuning_on_the_test_sets_claims_no_less(equal: Study) -> None:
    for item in tuned_over_fixed(equal, "big", "rouge_l"):
        assert item.optimistic >= 0
        assert item.optimistic > item.estimate


def test_best_values_that_were_planted_are_found(study: Study) -> None:
    """Another one for each student, the same in all sets and orders."""
    *same, students = best_values(study, "rouge_l")
    assert {item.dimension for item in same} == {"set", "order"}
    assert {item.verdict for item in same} == {"yes"}
    assert (students.dimension, students.best) == ("student", ("-5", "1"))
    assert students.verdict == "no"
    assert students.change is not None
    assert (students.change.mean, students.change.low, students.change.high) == (6, 6, 6)


def test_a_best_value_that_depends_on_a_factor_is_found(tmp_path: Path) -> None:
    def by_order(_student: str, setting: Setting, value: float) -> float:
        return 60 - 1.5 * abs(value - {"pr": -5, "qr": 1}[setting[0]])

    write_study_runs(tmp_path, replace(QUESTION, students=("one",)), by_order, noise=0.1)
    (order,) = [x for x in best_values(read_study(tmp_path), "rouge_l") if x.dimension == "order"]
    assert (order.best, order.verdict) == (("-5", "1"), "no")


def test_the_family_beats_what_was_planted_below_it(study: Study) -> None:
    found = family_over_special(study, "big", "rouge_l")
    assert {item.verdict for item in found if item.subject in ("sft", "alpha=1")} == {"yes"}
    for item in found:
        assert item.p_holm >= item.p
        assert item.ci_low < item.estimate < item.ci_high
    # Of the small student alpha 1 is the best value, which nothing beats.
    small = family_over_special(study, "small", "rouge_l")
    assert "yes" not in {item.verdict for item in small if item.subject == "alpha=1"}


def test_of_equal_values_nothing_can_be_told(equal: Study) -> None:
    for student in equal.students:
        special = family_over_special(equal, student, "rouge_l")
        assert {item.verdict for item in special} == {"cannot tell"}
    assert {item.verdict for item in best_values(equal, "rouge_l")} == {"cannot tell"}
    text = "\n".join(short_answers(equal, collect(equal)))
    assert "cannot tell with 3 training seeds: every fixed alpha" in text
    assert "The same best alpha across students: cannot tell" in text
    assert " beats " not in text


def test_table_has_every_figure_of_every_cell(study: Study, folder: Path) -> None:
    frame = pd.read_csv(folder / "study.csv")
    cells = frame[frame["role"] == "grid"]
    for metric in ("rouge_l", "rouge_l_greedy", "distinct_2", "forward_kl", "reverse_kl",
                   "clipped_share", "loss_spikes", "grad_norm_cv", "rouge_l_sd"):  # fmt: skip
        own = cells[cells["metric"] == metric].drop_duplicates(["student", "variant"])
        assert len(own) == 2 * len(study.design.cells)
        assert own["mean"].notna().all()


def test_table_repeats_the_leaderboards_of_the_runs(study: Study, folder: Path) -> None:
    frame = pd.read_csv(folder / "study.csv").query("student == 'big' and metric == 'rouge_l'")
    rows = study.boards["big"].rows
    for row in frame.itertuples():
        assert row.mean == pytest.approx(rows[str(row.variant), str(row.set), "rouge_l"].mean)


def test_report_answers_in_words_and_shows_every_plot(folder: Path) -> None:
    text = (folder / "study.md").read_text()
    assert "yes: alpha = -5 comes within the interval on all sets" in text
    assert "The same best alpha across students: **no**" in text
    assert "the best alpha changes by +6.0 (6.0 to 6.0)" in text
    assert "nan" not in text.replace("provenance", "")
    kinds = ("curves", "stability", "heatmaps")
    plots = {
        "best.png",
        *(f"{kind}-{student}.png" for kind in kinds for student in ("big", "small")),
    }
    assert {path.name for path in (folder / "plots").iterdir()} == plots
    assert all(f"(plots/{name})" in text for name in plots)


WORD = Question("order", objective="amid", students=("one",), against=("sft",))


@pytest.mark.parametrize("question", [WORD, replace(QUESTION, students=("one",))])
def test_one_seed_answers_nothing(tmp_path: Path, question: Question) -> None:
    write_study_runs(tmp_path, question, planted, seeds=1)
    lines = list(short_answers(found := read_study(tmp_path), collect(found)))
    assert all("cannot" in line for line in lines)
    assert "with 1 training seed" in " ".join(lines)


def test_an_unfinished_study_says_to_go_on(tmp_path: Path) -> None:
    write_study_runs(tmp_path, QUESTION, planted, seeds=0)
    with pytest.raises(UserError, match="no training seed is finished"):
        read_study(tmp_path)


def test_publishing_replaces_no_board_of_a_suite(folder: Path, tmp_path: Path) -> None:
    board = tmp_path / folder.name / "leaderboard.csv"
    board.parent.mkdir()
    board.touch()
    with pytest.raises(UserError, match="is the board of a suite"):
        publish_study(folder, tmp_path)
    assert board.exists()


def test_publishing_from_inside_a_study_keeps_the_other_boards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, boards = tmp_path / "study", tmp_path / "boards"
    shutil.copytree(folder, own)
    for student in ("big", "small"):
        for name in RUN_TABLES:
            (own / student / name).touch()
    (boards / "instruct").mkdir(parents=True)
    monkeypatch.chdir(own)
    assert publish_study(Path(), boards) == boards / "study"
    assert (boards / "instruct").exists()


def test_publishing_waits_for_the_runs_tables(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"big/leaderboard\.md"):
        publish_study(folder, tmp_path)
    assert not list(tmp_path.iterdir())
