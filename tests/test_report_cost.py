"""What the trainings took: cost.csv, the table's last columns, and their note."""

import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from kdbench.base.store import write_json
from kdbench.report.render import to_console, to_markdown
from kdbench.report.table import Board, build_board
from kdbench.report.write import write_report
from kdbench.runs.folder import Run
from tests.synthetic_run import Variant, amid_grid, write_run

VARIANTS = [Variant("sft", 50.0), Variant("gkd", 55.0, generated=300)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("runs") / "toy", VARIANTS)
    write_report(run)
    return run


def test_cost_has_means_over_the_trials_of_every_trained_variant(run: Run) -> None:
    table = pd.read_csv(run.path / "cost.csv").set_index("variant")
    assert set(table.index) == {"sft", "gkd"}
    seconds = ["n_seeds", "train_seconds", "train_seconds_min", "train_seconds_max"]
    assert list(table.loc["sft", seconds]) == [3, 2.5, 1.5, 3.5]  # they took 1.5, 2.5 and 3.5 s
    counts = ["tokens", "teacher_passes", "generated_tokens"]
    assert list(table.loc["gkd", counts]) == [6000, 18000, 18000]
    assert list(table.loc["sft", counts[1:]]) == [0, 0]


def last_cells(board: Board, variant: str, columns: int) -> list[str]:
    lines = to_markdown(board, "toy").splitlines()
    line = next(line for line in lines if line.startswith(f"| `{variant}` "))
    return [cell.strip() for cell in line.strip("|").split("|")][-columns:]


def test_the_leaderboard_holds_nothing_that_is_measured_in_seconds(
    run: Run, tmp_path: Path
) -> None:
    slower = write_run(tmp_path, VARIANTS)
    for trial in slower.trials():
        done = json.loads((trial.path / "DONE.json").read_text())
        write_json(trial.path / "DONE.json", {**done, "train_seconds": 99.0})
    write_report(slower)
    for name in ("leaderboard.csv", "stability.csv"):
        assert (slower.path / name).read_bytes() == (run.path / name).read_bytes()


def test_markdown_ends_with_the_costs_and_leaves_references_empty(run: Run) -> None:
    board = build_board(run)
    header = to_markdown(board, "toy").splitlines()[2]
    assert header.endswith("| train s | teacher passes | generated |")
    assert last_cells(board, "gkd", 3) == ["2.5", "18k", "18k"]
    assert last_cells(board, "sft", 3) == ["2.5", "0", "0"]
    assert (
        last_cells(board, "teacher", 3) == last_cells(board, "initial student", 3) == ["", "", ""]
    )


def test_counts_that_are_zero_everywhere_have_no_column_but_a_sentence(tmp_path: Path) -> None:
    board = build_board(write_run(tmp_path, VARIANTS[:1]))
    text = to_markdown(board, "toy")
    assert text.splitlines()[2].endswith("| clipped | train s |")
    assert "No training sampled or ran the teacher" in text


def test_every_console_row_is_one_line_of_120_characters(tmp_path: Path) -> None:
    variants = [*amid_grid(), Variant("distillm", 58.0, generated=1700)]
    board = build_board(write_run(tmp_path, variants))
    console = Console(width=120)
    with console.capture() as capture:
        console.print(to_console(board, "toy"))
    lines = capture.get().splitlines()
    end = next(place for place, line in enumerate(lines) if line.startswith(" •"))
    start = next(place for place, line in enumerate(lines) if "───" in line) + 1
    rows = [line for line in lines[start:end] if line.strip()]
    assert len(rows) == len(board.trials)
    assert all(line.strip().startswith(n) for line, n in zip(rows, board.trials, strict=True))
    assert sum(line.rstrip().endswith("102k") for line in rows) == 1
