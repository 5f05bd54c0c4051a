"""The price of tuning and the sensitivity to the learning rate, from runs of known figures."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.base.store import read_json, write_json
from kdbench.config.identity import Budget
from kdbench.report.notes import notes
from kdbench.report.table import build_board
from kdbench.report.tuning import write_tuning
from kdbench.runs.folder import Run
from kdbench.stats.intervals import over_seeds
from tests.synthetic_run import Variant, write_run, write_spec

LR = 0.004
SETS = {"dolly": 30, "vicuna": 20}


def write_rates(path: Path, means: dict[str, Sequence[float]]) -> Run:
    """Variants whose figures at half, once and twice the suite's learning rate are given."""
    variants = {
        (name, factor): Variant(name if factor == 1 else f"{name}[lr={LR * factor:g}]", mean)
        for name, three in means.items()
        for factor, mean in zip((0.5, 1, 2), three, strict=True)
    }
    run = write_run(path, list(variants.values()), steps=10, sets=SETS)
    for (name, factor), variant in variants.items():
        for files in run.trials():
            if factor != 1 and files.spec.variant == variant.name:
                spec = files.spec.model_dump() | {"objective": name, "lr": LR * factor}
                write_json(files.path / "spec.json", spec)
    return run


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`steep` wants twice its rate, `flat` does not care, `peaked` is right as it is."""
    path = tmp_path_factory.mktemp("rates") / "run"
    run = write_rates(path, {"steep": (40, 50, 60), "flat": (55, 55, 55), "peaked": (40, 58, 41)})
    write_tuning(run, build_board(run))
    return run


@pytest.fixture(scope="module")
def sensitivity(rates: Run) -> pd.DataFrame:
    return pd.read_csv(rates.path / "lr-sensitivity.csv").set_index("variant")


def test_sensitivity_shows_the_leaderboards_means_and_intervals(
    rates: Run, sensitivity: pd.DataFrame
) -> None:
    assert set(sensitivity.index) == {"steep", "flat", "peaked"}
    row = build_board(rates).rows["steep[lr=0.008]", "average", "rouge_l"]
    shown = sensitivity.loc["steep", ["x2", "x2_low", "x2_high"]]
    np.testing.assert_allclose(shown.astype(float), [row.mean, row.ci_low, row.ci_high])


def test_best_rate_and_shortfall_are_those_of_the_figures(
    rates: Run, sensitivity: pd.DataFrame
) -> None:
    board = build_board(rates)
    assert sensitivity.loc["steep", "best"] == 2
    assert sensitivity.loc["peaked", "best"] == 1
    figures = [
        np.array([trial.figure(board.sets, "rouge_l") for trial in board.trials[name]])
        for name in ("steep[lr=0.008]", "steep")
    ]
    expected = over_seeds(figures[0] - figures[1])
    shown = sensitivity.loc["steep", ["short", "short_low", "short_high"]].astype(float)
    np.testing.assert_allclose(shown, [expected.mean, expected.low, expected.high])
    assert sensitivity.loc["peaked", "short"] == 0


def test_choosing_the_rate_gains_where_it_matters_and_not_where_it_does_not(
    sensitivity: pd.DataFrame,
) -> None:
    assert sensitivity.loc["steep", "gain_low"] > 5
    assert sensitivity.loc["peaked", "gain"] == 0
    assert sensitivity.loc["flat", "gain_low"] < 0 < sensitivity.loc["flat", "gain_high"]


def test_sensitivity_is_written_in_words_and_drawn(rates: Run) -> None:
    text = (rates.path / "lr-sensitivity.md").read_text()
    assert "gains beyond its interval (`choosing gains`) for `steep`." in text
    assert (rates.path / "plots" / "lr-sensitivity.svg").read_text().count("steep") >= 1
    assert (rates.path / "plots" / "lr-sensitivity.png").stat().st_size > 10_000


def test_parameters_of_a_row_hold_its_learning_rate(rates: Run) -> None:
    rows = build_board(rates).rows
    assert json.loads(rows["steep[lr=0.002]", "average", "rouge_l"].params) == {"lr": 0.002}
    assert json.loads(rows["steep", "average", "rouge_l"].params) == {}


def test_a_run_without_neighbours_has_no_sensitivity(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Variant("sft", 50), Variant("tvd", 52)], sets=SETS)
    write_tuning(run, build_board(run))
    assert not list(run.path.glob("lr-sensitivity*")) + list(run.path.glob("tuning*"))


CANDIDATES = {"sft": (50, 58, 44), "tvd": (60, 52, 50)}
"""Means of the untuned candidate and of two others."""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("tuned") / "run")
    variants = {
        label: [
            Variant(label if place == 0 else f"{label}[lr={place}]", mean, seeds=(1000, 1001))
            for place, mean in enumerate(means)
        ]
        for label, means in CANDIDATES.items()
    }
    every = [variant for group in variants.values() for variant in group]
    write_run(run.path / "tuning", every, steps=10, sets={**SETS, "dev": 25})
    objectives = {
        label: {
            "chosen": max(group, key=lambda variant: variant.mean).name,
            "candidates": [
                {"variant": v.name, "lr": LR, "params": {}, "dev": v.mean, "diverged": False}
                for v in group
            ],
        }
        for label, group in variants.items()
    }
    write_json(run.path / "tuning.json", {"trials": 3, "seeds": 2, "objectives": objectives})
    chosen = [replace(variants["sft"][1], seeds=(0, 1)), replace(variants["tvd"][0], seeds=(0, 1))]
    write_run(run.path, chosen, steps=10, sets=SETS)
    write_spec(run, tuning=Budget(trials=3, seeds=2, split="dev", metric="rouge_l"))
    write_tuning(run, build_board(run))
    return run


def test_price_is_what_the_chosen_gains_over_the_untuned(tuned: Run) -> None:
    table = pd.read_csv(tuned.path / "tuning.csv")
    assert set(table["set"]) == {"average", *SETS}  # never dev
    table = table.set_index(["objective", "set", "way"])
    for way in ("on_average", "per_set"):
        sft = table.loc[("sft", "average", way)]
        assert sft["difference"] == pytest.approx(8, abs=1.5)
        assert 0 < sft["ci_low"] < sft["difference"] < sft["ci_high"]
        assert sft["mean"] - sft["fixed"] == pytest.approx(sft["difference"])
        assert table.loc[("tvd", "average", way), "difference"] == pytest.approx(0, abs=1e-9)


def test_candidates_are_listed_with_what_dev_chose(tuned: Run) -> None:
    text = (tuned.path / "tuning.md").read_text()
    assert "| `sft` | `sft` | 0.004 | 50.00 |" in text
    assert "|  | **`sft[lr=1]`** | 0.004 | 58.00 |" in text
    assert "**`tvd`**" in text
    assert "trained once" not in text


def test_one_training_of_each_candidate_is_said_to_mix_luck_in(tmp_path: Path, tuned: Run) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(tuned.path, run.path)
    for path in run.path.glob("tuning/trials/*/seed-1001"):
        shutil.rmtree(path)
    write_tuning(run, build_board(run))
    assert "**Each candidate was trained once.**" in (run.path / "tuning.md").read_text()


def test_dev_is_in_no_average_of_the_candidates_board(tuned: Run) -> None:
    board = build_board(Run(tuned.path / "tuning"))
    assert board.sets == sorted(SETS)
    averages = {row.n_samples for row in board.rows.values() if row.set == "average"}
    assert averages == {sum(SETS.values())}


@pytest.mark.parametrize(
    ("tuning", "words"),
    [(None, "Nothing was tuned for this table"), (4, "tuned: 4 trials each on dev")],
)
def test_table_says_what_was_tuned(tmp_path: Path, tuning: int | None, words: str) -> None:
    run = write_run(tmp_path / "run", [Variant("sft", 50)], sets=SETS)
    budget = tuning and Budget(trials=tuning, seeds=1, split="dev", metric="rouge_l")
    write_spec(run, tuning=budget or None)
    assert sum(words in note for note in notes(build_board(run))) == 1


def test_an_unfinished_candidate_leaves_its_objective_out(tmp_path: Path, tuned: Run) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(tuned.path, run.path)
    for files in Run(run.path / "tuning").trials():
        if files.spec.variant == "sft[lr=2]":
            (files.path / "DONE.json").unlink()
    write_tuning(run, build_board(run))
    assert set(pd.read_csv(run.path / "tuning.csv")["objective"]) == {"tvd"}
    assert set(read_json(run.path / "tuning.json")["objectives"]) == {"sft", "tvd"}
