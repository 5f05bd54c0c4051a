"""What `write_report` leaves in a run's folder."""

import contextlib
import csv
import math
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.report.stamp import is_current
from kdbench.report.table import leaderboard
from kdbench.report.write import write_report
from kdbench.runs.folder import Run
from kdbench.runs.samples import read_samples
from tests.synthetic_run import Variant, write_run, write_trial

AMID = [
    Variant(f"amid[alpha={alpha:g}]", 58 - alpha / 2, {"alpha": alpha, "order": "pr"})
    for alpha in (-5.0, 0.0, 1.0)
]
PLOTS = {"leaderboard", "loss", "grad_norm", "diagnostics", "amid_alpha", "ranks", "profiles"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variants = [*AMID, Variant("sft", 54.0), Variant("tvd", 57.0, diverged=(1,))]
    run = write_run(tmp_path_factory.mktemp("runs") / "toy", variants)
    (run.path / "plots").mkdir()
    (run.path / "plots" / "mine.png").write_bytes(b"kept")
    write_report(run)
    return run


def test_csv_holds_every_float_to_the_last_bit(run: Run) -> None:
    with (run.path / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("mean", "ci_low", "ci_high", "sd_train", "mean_undiverged"):
        written = [float(row[name]) if row[name] else None for row in rows]
        exact = [None if math.isnan(value) else value for value in leaderboard(run)[name]]
        assert written == exact


def test_every_plot_is_a_png_and_an_svg(run: Run) -> None:
    files = {path.name for path in (run.path / "plots").iterdir()} - {"mine.png"}
    assert files == {f"{name}.{suffix}" for name in PLOTS for suffix in ("png", "svg")}
    for path in (run.path / "plots").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_nothing_else_in_the_folder_is_touched(run: Run) -> None:
    assert (run.path / "plots" / "mine.png").read_bytes() == b"kept"
    assert {path.name for path in run.path.iterdir()} == {
        "trials", "plots", "spec.yaml", "leaderboard.csv", "leaderboard.html", "leaderboard.md",
        "leaderboard.tex", "stability.csv", "stability.md", "cost.csv", "spikes.csv",
        "evidence.md", "comparisons.csv", "ranks.csv", "variance.csv",
        "stability_comparisons.csv", "report.json",
    }  # fmt: skip


def test_reporting_again_returns_the_table_and_gives_the_same_bytes(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    pd.testing.assert_frame_equal(write_report(run), leaderboard(run))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("call", [0, 1, 4, 9, 14])
def test_a_report_that_was_stopped_in_the_middle_is_not_current(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "toy"))
    assert is_current(copy)
    (copy.path / "trials/sft/seed-2/DONE.json").unlink()
    whole, left = store.new_file, [call]

    @contextlib.contextmanager
    def stopping(path: Path) -> Iterator[Path]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        with whole(path) as temporary:
            yield temporary

    monkeypatch.setattr(store, "new_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_report(copy)
    monkeypatch.undo()
    assert not is_current(copy)
    write_report(copy)
    assert is_current(copy)


@pytest.mark.parametrize("name", ["leaderboard.csv", "report.json", "plots/loss.png", "spec.yaml"])
def test_a_report_with_a_damaged_file_is_not_current(run: Run, tmp_path: Path, name: str) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "toy"))
    (copy.path / name).write_bytes((copy.path / name).read_bytes()[:-2] + b" ")
    assert not is_current(copy)


def test_a_report_is_not_current_when_a_trial_has_finished_since(run: Run, tmp_path: Path) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "toy"))
    write_trial(copy, Variant("sft", 54.0), 7, steps=20, sets={"dolly": 8, "vicuna": 6})
    assert not is_current(copy)


@pytest.mark.parametrize("content", ["{}", '{"text": 7, "references": []}', "[]", "<html>"])
def test_samples_that_no_run_wrote_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "dolly.jsonl").write_text(content + "\n")
    with pytest.raises(UserError, match=r"dolly\.jsonl"):
        read_samples(Run(tmp_path), "dolly")


def test_plots_without_data_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, [Variant("sft", 54.0)], steps=0)
    write_report(run)
    assert {path.stem for path in (run.path / "plots").iterdir()} == {"leaderboard"}


def test_a_run_without_finished_trials_writes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path, [], references=False)
    with pytest.raises(UserError, match="no finished trial"):
        write_report(run)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
