"""`kdbench reproduce`: planted agreement and disagreement, the data's checks, the command line."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from kdbench.base.store import write_text
from kdbench.cli import main
from kdbench.compare.published import FILE, load_published
from kdbench.compare.reproduction import Reproduction, reproduce, to_markdown
from kdbench.report.table import leaderboard
from kdbench.runs.folder import Run
from tests.compare_runs import write_described_run
from tests.conftest import Cli
from tests.synthetic_run import Variant

SETS = {"dolly": 60, "self-inst": 40, "vicuna": 30}
ROWS = {"forward-kl": 23.49, "reverse-kl": 23.79, "jsd": 24.07, "tvd": 24.32, "skew-kl": 24.24}
"""Of the table pocl, on Dolly."""


def planted(
    path: Path, changes: Mapping[str, float] | None = None, suite: str = "dolly-gpt2"
) -> Run:
    """A run whose means on Dolly lie near the published ones, but for `changes`."""
    changes = changes or {}
    variants = [
        Variant(name, 40 + mean + changes.get(name, 0.0), noise=0.02) for name, mean in ROWS.items()
    ]
    run = write_described_run(path, variants, sets=SETS)
    spec = yaml.safe_load((run.path / "spec.yaml").read_text())
    spec["shared"]["suite"]["name"] = suite
    write_text(run.path / "spec.yaml", yaml.safe_dump(spec, sort_keys=False))
    return run


def small(tmp_path: Path) -> Path:
    """The published tables, pocl raised by 40 points and of the synthetic sizes."""
    tree = yaml.safe_load(FILE.read_text())
    tree["sizes"] |= SETS
    (table,) = [table for table in tree["tables"] if table["id"] == "pocl"]
    for row in table["rows"].values():
        row["mean"] = [row["mean"][0] + 40, row["mean"][0] + 37, row["mean"][0] + 34, None, None]
        del row["average"]
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def compared(
    tmp_path: Path, changes: Mapping[str, float] | None = None, *, tiny: bool = False
) -> Reproduction:
    published = load_published(small(tmp_path))
    run = planted(tmp_path / "run", changes)
    return reproduce(published, published.table("pocl"), {"dolly-gpt2": run}, tiny=tiny)


def verdicts(found: Reproduction, column: str) -> dict[str, str]:
    """Of the rows that were trained."""
    cells = [cell for cell in found.cells if cell.row != "teacher"]
    return {cell.row: cell.verdict for cell in cells if cell.set == column}


# A run beside a table


def test_planted_agreement_and_disagreement_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The synthetic seeds spread by 0.8, so the limits are wider than a point."""
    found = compared(tmp_path, {"tvd": 25.0})
    others = dict.fromkeys(ROWS.keys() - {"tvd"}, "cannot tell")
    assert verdicts(found, "dolly") == others | {"tvd": "not reproduced"}
    monkeypatch.setattr("kdbench.compare.cells.RESOLUTION", 5.0)
    published, runs = (
        load_published(tmp_path / "published.yaml"),
        {"dolly-gpt2": Run(tmp_path / "run")},
    )
    found = reproduce(published, published.table("pocl"), runs, tiny=False)
    others = dict.fromkeys(others, "reproduced")
    assert verdicts(found, "dolly") == others | {"tvd": "not reproduced"}


def test_the_answer_comes_first(tmp_path: Path) -> None:
    lines = to_markdown(compared(tmp_path, {"tvd": 25.0})).splitlines()
    assert lines[2].startswith("Of 24 cells: 0 reproduced, 4 not reproduced, 20 cannot tell.")
    assert "Kendall's tau of 5 rows, on the average: 1.00 (95 % over rows: " in lines[2]


def test_a_verdict_refers_to_its_reason_below_the_table(tmp_path: Path) -> None:
    text = to_markdown(compared(tmp_path))
    assert "| cannot tell [1] |" in text
    assert "* [1] one training seed" in text
    assert "* [2] limits wider than 1 point" in text


def test_figures_and_differences_are_those_of_the_stored_scores(tmp_path: Path) -> None:
    found = compared(tmp_path)
    (cell,) = [c for c in found.cells if (c.row, c.set) == ("jsd", "self-inst")]
    means = [
        pd.read_parquet(path).query("set == 'self-inst' and metric == 'rouge_l'")["value"].mean()
        for path in sorted((tmp_path / "run").glob("trials/jsd/seed-*/scores.parquet"))
    ]
    assert cell.ours == pytest.approx(np.mean(means))
    assert cell.difference == pytest.approx(np.mean(means) - cell.published)
    interval = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (cell.low, cell.high) == pytest.approx(interval)


def test_rank_agreement_is_kendalls(tmp_path: Path) -> None:
    found = compared(tmp_path, {"forward-kl": 5.0})
    cells = [c for c in found.cells if c.set == "average" and c.row != "teacher"]
    expected = stats.kendalltau([c.published for c in cells], [c.ours for c in cells]).statistic
    assert found.tau["average"].mean == pytest.approx(expected)
    assert found.tau["average"].low < expected < found.tau["average"].high


def test_rows_and_sets_without_figures_are_listed(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert set(found.missing) == {"sft", "seqkd", "skew-reverse-kl", "gkd"}
    assert found.lacking == ["sinst", "uinst"]
    text = to_markdown(found)
    assert "* gkd: not in the run" in text
    assert "sets that the run does not have: sinst, uinst" in text
    assert set(found.frame()["row"]) == set(found.table.rows)


def decoded_twice(run: Run) -> Run:
    """The run with a second decoding seed, whose answers score less."""
    for path in run.path.glob("trials/*/*/scores.parquet"):
        rows = pd.read_parquet(path)
        more = rows.query("metric == 'rouge_l'").assign(decoding_seed=20)
        more["value"] *= np.linspace(0.5, 0.9, len(more))
        pd.concat([rows, more]).to_parquet(path)
    return run


def as_board(run: Run, path: Path) -> Run:
    path.mkdir()
    leaderboard(run).to_csv(path / "leaderboard.csv", index=False)
    shutil.copyfile(run.path / "spec.yaml", path / "spec.yaml")
    return Run(path)


@pytest.mark.parametrize("name", ["pocl", "akl"])
def test_a_board_has_the_figures_of_its_run(tmp_path: Path, name: str) -> None:
    """Of akl's sets it has Dolly alone, so the average is not the board's own."""
    published = load_published(small(tmp_path))
    run = decoded_twice(planted(tmp_path / "run"))
    found = [
        reproduce(published, published.table(name), {"dolly-gpt2": side}, tiny=False)
        for side in (run, as_board(run, tmp_path / "board"))
    ]
    ours = [{(cell.row, cell.set): cell.ours for cell in one.cells} for one in found]
    assert ours[1] == pytest.approx(ours[0])
    decodings = [
        {(c.row, c.set): c.decoding_sd for c in one.cells if c.set in one.table.sets}
        for one in found
    ]
    assert decodings[1] == pytest.approx(decodings[0])
    assert min(decodings[0].values()) > 0


def test_an_average_over_fewer_sets_than_a_boards_cannot_be_told(tmp_path: Path) -> None:
    published = load_published(small(tmp_path))
    board = as_board(planted(tmp_path / "run"), tmp_path / "board")
    found = reproduce(published, published.table("akl"), {"dolly-gpt2": board}, tiny=False)
    assert set(verdicts(found, "dolly").values()) == {"not reproduced"}
    assert set(verdicts(found, "average").values()) == {"cannot tell"}


def test_other_prompts_than_the_published_widen_the_limits(tmp_path: Path) -> None:
    same = compared(tmp_path)
    tree = yaml.safe_load((tmp_path / "published.yaml").read_text())
    tree["sizes"]["dolly"] = 500
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(tree))
    published = load_published(tmp_path / "more.yaml")
    runs = {"dolly-gpt2": Run(tmp_path / "run")}
    other = reproduce(published, published.table("pocl"), runs, tiny=False)
    halves = [{(c.row, c.set): c.half for c in found.cells} for found in (same, other)]
    assert halves[1]["tvd", "dolly"] > halves[0]["tvd", "dolly"]
    assert halves[1]["tvd", "vicuna"] == pytest.approx(halves[0]["tvd", "vicuna"])


def test_tiny_says_rank_agreement_only_and_gives_no_verdict(tmp_path: Path) -> None:
    found = compared(tmp_path, tiny=True)
    assert {cell.verdict for cell in found.cells} == {""}
    assert np.isnan([cell.difference for cell in found.cells]).all()
    text = to_markdown(found)
    assert "RANK AGREEMENT ONLY" in text
    assert "reproduced |" not in text


def test_rows_that_differ_by_the_student_are_one_row_at_tiny_scale(tmp_path: Path) -> None:
    run = write_described_run(
        tmp_path / "run", [Variant("alpha-beta", 59.4), Variant("amid", 60.4)], sets=SETS
    )
    published = load_published()
    table = published.table("amid-table-1-averages")
    found = reproduce(published, table, {"instruct": run}, tiny=True)
    assert [cell.row for cell in found.cells] == ["abkd-0.3b", "amid-0.3b"]
    assert "the same variant as abkd-0.3b" in found.missing["abkd-0.8b"]


def test_an_average_over_fewer_sets_has_no_verdict(tmp_path: Path) -> None:
    run = write_described_run(
        tmp_path / "run", [Variant("amid[alpha=1,divergence=forward-kl]", 18.2)], sets=SETS
    )
    published = load_published()
    found = reproduce(published, published.table("amid-table-3"), {"dolly-gpt2": run}, tiny=False)
    assert [(c.verdict, c.reason) for c in found.cells] == [
        ("", "the run lacks sets of this average")
    ]


def test_a_changed_setting_and_a_diverged_training_are_said(tmp_path: Path) -> None:
    run = write_described_run(
        tmp_path / "run",
        [Variant("jsd", 64.0, diverged=(1,))],
        settings=["recipe.lr=0.001"],
        sets=SETS,
    )
    published = load_published(small(tmp_path))
    found = reproduce(published, published.table("pocl"), {"dolly-gpt2": run}, tiny=False)
    text = to_markdown(found)
    assert "* run differs from the installed suite: recipe.lr: 0.004 -> 0.001" in text
    assert "* run: jsd: 1 of 3 trainings diverged" in text


def test_all_that_is_inferred_is_printed(tmp_path: Path) -> None:
    text = to_markdown(compared(tmp_path))
    tree = yaml.safe_load(FILE.read_text())
    (table,) = [table for table in tree["tables"] if table["id"] == "pocl"]
    rows = [
        f"{name}: {row['inferred']}" for name, row in table["rows"].items() if "inferred" in row
    ]
    for line in [*tree["inferred"], *table["inferred"], *rows]:
        assert f"* {line}" in text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("abkd", "alpha-beta-Divergence (ICML 2025, arXiv:2505.04560); the authors' own"),
        ("akl", "Large Language Models (arXiv:2404.02657); as transcribed"),
        ("pocl", "in one code base; its README"),
    ],
)
def test_a_source_names_venue_and_arxiv_where_they_are_known(name: str, line: str) -> None:
    table = load_published().table(name)
    assert line in f"{table.paper.citation}; {table.source}"


def test_a_method_that_kdbench_lacks_is_listed(tmp_path: Path) -> None:
    tree = yaml.safe_load(FILE.read_text())
    (table,) = [table for table in tree["tables"] if table["id"] == "pocl"]
    table["rows"]["jsd"] |= {"variant": None, "lacks": "not written yet"}
    table["rows"]["tvd"]["variant"] = "no-such-objective"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(tree))
    published = load_published(tmp_path / "p.yaml")
    run = planted(tmp_path / "run")
    found = reproduce(published, published.table("pocl"), {"dolly-gpt2": run}, tiny=False)
    assert found.missing["jsd"] == "kdbench lacks this method: not written yet"
    assert found.missing["tvd"].startswith("kdbench lacks this method: unknown objective")


# The command line


def test_on_the_real_command_line(tmp_path: Path, cli: Cli) -> None:
    planted(tmp_path / "results" / "mine", suite="instruct")
    arguments = ("reproduce", "pocl", "--scale", "tiny", "--from", "mine")
    result = cli(*arguments, "--output", "out.csv")
    assert "RANK AGREEMENT ONLY" in result.stdout
    assert "Kendall's tau of 5 rows" in result.stdout
    rows = pd.read_csv(tmp_path / "out.csv")
    assert set(rows["row"]) == set(load_published().table("pocl").rows)
    assert rows["verdict"].isna().all()


def test_list_shows_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", "--list") == 0
    printed = capsys.readouterr().out
    for table in load_published().tables:
        assert table.id in printed
        assert table.paper.arxiv in printed


def test_a_tiny_table_expands_to_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("reproduce", "abkd", "--scale", "tiny", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "reproduce-abkd-tiny: 11 variants, 3 seeds" in printed
    assert "alpha-beta@adaptive" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "kdbench reproduce --list"),
        (["pocll"], "did you mean"),
        (["pocl", "--from", "absent"], "no run 'absent'"),
        (["pocl", "--from", "MINE"], "--scale tiny compares the order of the rows alone"),
        (["minillm", "--scale", "tiny", "--from", "MINE"], "no row of minillm is finished there"),
        (["pocl", "--scale", "tiny", "--from", "MINE", "--seeds", "5"], "--seeds would do nothing"),
        (["akl", "--scale", "tiny", "--from", "MINE", "--output", "x.pdf"], "has to end in"),
        (["akl", "--scale", "tiny", "--from", "MINE", "--output", "there.md"], "--force replaces"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = planted(tmp_path / "mine", suite="instruct")
    Path("there.md").write_text("mine")
    assert call("reproduce", *(word.replace("MINE", str(run.path)) for word in arguments)) == 2
    assert message in capsys.readouterr().err
    assert Path("there.md").read_text() == "mine"


def test_a_suite_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kdbench.config.load.installed_suites", dict)
    assert call("reproduce", "pocl") == 2
    assert "pocl needs dolly-gpt2, not installed here" in capsys.readouterr().err
    assert not Path("results").exists()


def test_an_unfinished_row_is_listed(tmp_path: Path) -> None:
    run = planted(tmp_path / "run")
    shutil.rmtree(run.path / "trials" / "jsd")
    published = load_published()
    found = reproduce(published, published.table("pocl"), {"dolly-gpt2": run}, tiny=False)
    assert found.missing["jsd"] == "not in the run"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert isinstance(stop.value.code, int)
    return stop.value.code
