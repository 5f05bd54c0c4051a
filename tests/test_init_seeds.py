"""Several initial students: where their files lie, and what the tables make of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kdbench.cli import main
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.trial import trials_of
from kdbench.report.evidence import write_evidence
from kdbench.report.notes import notes
from kdbench.report.table import AVERAGE, Board, build_board
from kdbench.runs.folder import Run
from kdbench.runs.provenance import BYTES_DEPEND_ON, mixed
from kdbench.runs.results import grid_of
from kdbench.stats.intervals import over_seeds
from tests.synthetic_run import Variant, write_run, write_trial

BOTH = [
    Variant("jsd", 58.0, init_seeds=(0, 1)),
    Variant("tvd", 57.0, init_seeds=(0, 1)),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("runs") / "toy", BOTH)
    write_trial(run, Variant("initial student", 51.5), 0, 1, steps=0)
    return run


@pytest.fixture(scope="module")
def board(run: Run) -> Board:
    return build_board(run)


@pytest.fixture(scope="module")
def evidence(run: Run, board: Board) -> Path:
    write_evidence(run, board)
    return run.path


def figure(run: Run, slug: str, seed: int, init_seed: int) -> float:
    rows = pd.read_parquet(run.trial(slug, seed, init_seed).scores_path)
    rows = rows[rows["metric"] == "rouge_l"]
    return float(rows.groupby("set")["value"].mean().mean())


def test_initial_students_differ_in_weights_and_order_of_fit(artifacts: Artifacts) -> None:
    seeds = range(3)
    assert artifacts.model("student") == artifacts.model("student", 0)
    assert artifacts.seed_key("student", 0) == "micro/init"
    assert len({artifacts.model("student", seed) for seed in seeds}) == 3
    assert len({artifacts.seed_key("student", seed) for seed in seeds}) == 3


def test_trials_come_by_initial_student_then_by_seed(run: Run) -> None:
    trials = trials_of([], 2, 2)
    assert [trial.label for trial in trials] == ["teacher", "initial student", "initial student 1"]
    assert [str(trial.files(run).path.relative_to(run.path / "trials")) for trial in trials] == [
        "teacher/seed-0", "initial-student/seed-0", "initial-student/seed-0.init-1",
    ]  # fmt: skip
    assert [trial.spec.init_seed for trial in trials] == [0, 0, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init-seeds", "0"], "at least one initial student"),
        (
            ["--init-seeds", "2", "--set", "student={path: small}", "--set", "tokenizer={}"],
            "the suite's student comes from a folder (small), so there is one",
        ),
    ],
)
def test_initial_students_that_cannot_be_made_are_refused(
    micro: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    out = micro.parent / "results"
    with pytest.raises(SystemExit) as stop:
        main(["run", "--suite", str(micro), "--out", str(out), *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def entry(**weights: str) -> dict[str, Any]:
    return {key: {} for key in BYTES_DEPEND_ON} | {"weights": weights}


def test_more_initial_students_do_not_mix_a_run() -> None:
    first, second = entry(teacher="a", student="b"), entry(teacher="a", student="b", second="c")
    assert mixed([first, second]) == []
    assert mixed([first, second, entry(teacher="a", student="z")]) == ["weights"]


def test_a_figure_of_a_seed_is_the_mean_over_initial_students(run: Run, board: Board) -> None:
    per_seed = [np.mean([figure(run, "jsd", seed, m) for m in (0, 1)]) for seed in range(3)]
    expected, found = over_seeds(per_seed), board.rows["jsd", AVERAGE, "rouge_l"]
    assert (found.mean, found.ci_low, found.ci_high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert (found.n_seeds, found.n_init_seeds) == (3, 2)


def test_the_row_of_the_initial_student_is_their_mean(run: Run, board: Board) -> None:
    found = board.rows["initial student", AVERAGE, "rouge_l"]
    assert found.mean == pytest.approx(
        np.mean([figure(run, "initial student", 0, m) for m in (0, 1)])
    )
    assert (found.interval, found.n_init_seeds) == ("samples", 2)


def test_divergence_is_counted_over_all_trials(tmp_path: Path) -> None:
    board = build_board(write_run(tmp_path, [BOTH[0], Variant("tvd", 57.0, diverged=(1,))]))
    assert board.stability["jsd"].n_trials == 6
    assert board.stability["tvd"].n_trials == 3
    assert board.rows["tvd", AVERAGE, "rouge_l"].n_diverged == 1


def test_an_unfinished_initial_student_is_excluded(tmp_path: Path) -> None:
    run = write_run(tmp_path, [Variant("jsd", 58.0), Variant("tvd", 57.0)])
    before = build_board(run)
    write_trial(run, Variant("jsd", 58.0), 0, 1)
    after = build_board(run)
    assert after.rows == before.rows
    assert "1 finished trial is excluded: its initial student lacks some training" in " ".join(
        notes(after)
    )


def test_variants_are_compared_on_the_initial_students_of_all(tmp_path: Path) -> None:
    run = write_run(tmp_path, [BOTH[0], Variant("tvd", 57.0)])
    board = build_board(run)
    assert (board.seeds, board.init_seeds, board.unequal_seeds) == ([0, 1, 2], [0], True)
    assert "(seeds 0, 1, 2; initial students 0)" in " ".join(notes(board))
    alone = build_board(write_run(tmp_path / "alone", [Variant("jsd", 58.0), Variant("tvd", 57.0)]))
    for key, result in alone.tiers.items():
        np.testing.assert_array_equal(board.tiers[key].p, result.p)


class Place:
    def __init__(self, seed: int, init_seed: int) -> None:
        self.seed, self.init_seed = seed, init_seed


@pytest.mark.parametrize(
    ("cells", "seeds", "students"),
    [
        ([(0, 0), (0, 1), (1, 0), (1, 1)], (0, 1), (0, 1)),
        ([(0, 0), (1, 0), (0, 1)], (0, 1), (0,)),
        ([(0, 0), (0, 1), (1, 1)], (0, 1), (1,)),
        ([(0, 0), (1, 1)], (0,), (0,)),
        ([], (), ()),
    ],
)
def test_a_grid_has_the_most_seeds_and_then_whole_initial_students(
    cells: list[tuple[int, int]], seeds: tuple[int, ...], students: tuple[int, ...]
) -> None:
    grid = grid_of([[Place(*cell) for cell in cells]])
    assert (grid.seeds, grid.init_seeds) == (seeds, students)


def test_notes_say_what_an_interval_holds(board: Board, tmp_path: Path) -> None:
    assert "hold for these 2; evidence.md has intervals that hold for others" in " ".join(
        notes(board)
    )
    alone = build_board(write_run(tmp_path, [Variant("jsd", 58.0)]))
    assert "no interval here shows what another would change" in " ".join(notes(alone))


def test_the_variance_table_has_the_initial_student(evidence: Path) -> None:
    rows = pd.read_csv(evidence / "variance.csv")
    components = set(rows["component"])
    assert {"initial student", "training seed x initial student"} <= components
    assert "The initial student's share of the variance, as run:" in (
        evidence / "evidence.md"
    ).read_text(encoding="utf-8")


def test_intervals_for_other_students_are_there_with_several_alone(
    evidence: Path, tmp_path: Path
) -> None:
    ranks, pairs = (pd.read_csv(evidence / f"{name}.csv") for name in ("ranks", "comparisons"))
    assert (ranks["students_low"] < ranks["mean"]).all()
    assert (pairs["students_low"] < pairs["difference"]).all()
    run = write_run(tmp_path, [Variant("jsd", 58.0), Variant("tvd", 57.0)])
    write_evidence(run, build_board(run))
    assert pd.read_csv(tmp_path / "ranks.csv")["students_low"].isna().all()
    text = (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert "One initial student: it was held fixed" in text
