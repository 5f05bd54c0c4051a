"""`kdbench reproduce`: planted agreement and disagreement, the data's checks, the command line."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from kdbench.compare.published import FILE, Published, load_published
from kdbench.compare.reproduction import Reproduction, reproduce, to_markdown
from kdbench.runs.folder import Run
from tests.compare_runs import as_board, write_described_run
from tests.conftest import Cli
from tests.synthetic_run import Variant, write_spec

SETS = {"dolly": 60, "self-inst": 40, "vicuna": 30}
ROWS = {"forward-kl": 23.49, "reverse-kl": 23.79, "jsd": 24.07, "tvd": 24.32, "skew-kl": 24.24}
"""Of the table pocl, on Dolly."""


def planted(
    path: Path, changes: Mapping[str, float] | None = None, suite: str = "dolly-gpt2"
) -> Run:
    """A run whose means on Dolly lie near the published ones, but for `changes`."""
    means = {name: 40 + mean + (changes or {}).get(name, 0.0) for name, mean in ROWS.items()}
    variants = [Variant(name, mean, noise=0.02) for name, mean in means.items()]
    run = write_described_run(path, variants, sets=SETS)
    write_spec(run, list(ROWS), sets=SETS, name=suite)
    return run


def small(folder: Path, **sizes: int) -> Published:
    """The published tables, pocl raised by 40 points and of the synthetic sizes."""
    tree = yaml.safe_load(FILE.read_text())
    tree["sizes"] |= SETS | sizes
    (table,) = [table for table in tree["tables"] if table["id"] == "pocl"]
    for row in table["rows"].values():
        row["mean"] = [row["mean"][0] + 40, row["mean"][0] + 37, row["mean"][0] + 34, None, None]
        del row["average"]
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_published(path)


def reproduced(
    run: Run, published: Published, table: str = "pocl", *, tiny: bool = False
) -> Reproduction:
    return reproduce(published, published.table(table), {"dolly-gpt2": run}, tiny=tiny)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return small(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("planted") / "run")


@pytest.fixture(scope="module")
def found(run: Run, published: Published) -> Reproduction:
    return reproduced(run, published)


def verdicts(found: Reproduction, column: str) -> dict[str, str]:
    """Of the rows that were trained."""
    cells = [cell for cell in found.cells if cell.row != "teacher"]
    return {cell.row: cell.verdict for cell in cells if cell.set == column}


# A run beside a table


def test_planted_agreement_and_disagreement_are_found(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The synthetic seeds spread by 0.8, so the limits are wider than a point."""
    run = planted(tmp_path / "run", {"tvd": 25.0})
    found = reproduced(run, published)
    others = dict.fromkeys(ROWS, "cannot tell")
    assert verdicts(found, "dolly") == others | {"tvd": "not reproduced"}
    # The answer comes first; a verdict refers to its reason below the table.
    text = to_markdown(found)
    answer = text.splitlines()[2]
    assert answer.startswith("Of 24 cells: 0 reproduced, 4 not reproduced, 20 cannot tell.")
    assert "Kendall's tau of 5 rows, on the average: 1.00 (95 % over rows: " in answer
    assert "| cannot tell [1] |" in text
    assert "* [1] one training seed\n* [2] limits wider than 1 point" in text
    monkeypatch.setattr("kdbench.compare.cells.RESOLUTION", 5.0)
    others = dict.fromkeys(ROWS, "reproduced")
    found = reproduced(run, published)
    assert verdicts(found, "dolly") == others | {"tvd": "not reproduced"}


def test_figures_and_differences_are_those_of_the_stored_scores(
    run: Run, found: Reproduction
) -> None:
    (cell,) = [c for c in found.cells if (c.row, c.set) == ("jsd", "self-inst")]
    means = [
        pd.read_parquet(path).query("set == 'self-inst' and metric == 'rouge_l'")["value"].mean()
        for path in sorted(run.path.glob("trials/jsd/seed-*/scores.parquet"))
    ]
    assert cell.ours == pytest.approx(np.mean(means))
    assert cell.difference == pytest.approx(np.mean(means) - cell.published)
    interval = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (cell.low, cell.high) == pytest.approx(interval)


def test_rank_agreement_is_kendalls(tmp_path: Path, published: Published) -> None:
    run = planted(tmp_path / "run", {"forward-kl": 5.0})
    found = reproduced(run, published)
    cells = [c for c in found.cells if c.set == "average" and c.row != "teacher"]
    expected = stats.kendalltau([c.published for c in cells], [c.ours for c in cells]).statistic
    assert found.tau["average"].mean == pytest.approx(expected)
    assert found.tau["average"].low < expected < found.tau["average"].high
    text = to_markdown(reproduced(run, published, tiny=True))
    ranks = [line.split(" | ")[3:5] for line in text.splitlines() if line.startswith("| `")]
    assert ranks == [["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"], ["5", "1"], ["", ""]]


def test_rows_and_sets_without_figures_are_listed(
    tmp_path: Path, run: Run, found: Reproduction, published: Published
) -> None:
    assert set(found.missing) == {"sft", "seqkd", "skew-reverse-kl", "gkd"}
    assert found.lacking == ["sinst", "uinst"]
    text = to_markdown(found)
    assert "* gkd: not in the run" in text
    assert "sets that the run does not have: sinst, uinst" in text
    assert set(found.frame()["row"]) == set(found.table.rows)
    unfinished = Run(Path(shutil.copytree(run.path, tmp_path / "run")))
    shutil.rmtree(unfinished.path / "trials" / "jsd")
    assert reproduced(unfinished, published).missing["jsd"] == "not in the run"


def decoded_twice(run: Run) -> Run:
    """The run with a second decoding seed, whose answers score less."""
    for path in run.path.glob("trials/*/*/scores.parquet"):
        rows = pd.read_parquet(path)
        more = rows.query("metric == 'rouge_l'").assign(decoding_seed=20)
        more["value"] *= np.linspace(0.5, 0.9, len(more))
        pd.concat([rows, more]).to_parquet(path)
    return run


@pytest.mark.parametrize("name", ["pocl", "akl"])
def test_a_board_has_the_figures_of_its_run(
    tmp_path: Path, published: Published, name: str
) -> None:
    """Of akl's sets it has Dolly alone, so the average is not the board's own."""
    run = decoded_twice(planted(tmp_path / "run"))
    found = [
        reproduced(side, published, name).frame().set_index(["row", "set"])
        for side in (run, as_board(run, tmp_path / "board"))
    ]
    ours, boards = (frame["ours"].dropna() for frame in found)
    pd.testing.assert_series_equal(ours, boards)
    ours, boards = (frame["decoding_sd"].drop("average", level="set").dropna() for frame in found)
    pd.testing.assert_series_equal(ours, boards)
    assert ours.min() > 0


def test_an_average_over_fewer_sets_than_a_boards_cannot_be_told(
    tmp_path: Path, run: Run, published: Published
) -> None:
    found = reproduced(as_board(run, tmp_path / "board"), published, "akl")
    assert set(verdicts(found, "dolly").values()) == {"not reproduced"}
    assert set(verdicts(found, "average").values()) == {"cannot tell"}


def test_other_prompts_than_the_published_widen_the_limits(
    tmp_path: Path, run: Run, found: Reproduction
) -> None:
    other = reproduced(run, small(tmp_path, dolly=500))
    halves = [{(c.row, c.set): c.half for c in one.cells} for one in (found, other)]
    assert halves[1]["tvd", "dolly"] > halves[0]["tvd", "dolly"]
    assert halves[1]["tvd", "vicuna"] == pytest.approx(halves[0]["tvd", "vicuna"])


def test_tiny_says_rank_agreement_only_and_gives_no_verdict(run: Run, published: Published) -> None:
    found = reproduced(run, published, tiny=True)
    assert {cell.verdict for cell in found.cells} == {""}
    assert np.isnan([cell.difference for cell in found.cells]).all()
    text = to_markdown(found)
    assert "RANK AGREEMENT ONLY" in text
    assert "reproduced |" not in text


def test_rows_that_differ_by_the_student_are_one_row_at_tiny_scale(tmp_path: Path) -> None:
    variants = [Variant("alpha-beta", 59.4), Variant("amid", 60.4)]
    run = write_described_run(tmp_path / "run", variants, sets=SETS)
    found = reproduced(run, load_published(), "amid-table-1-averages", tiny=True)
    assert [cell.row for cell in found.cells] == ["abkd-0.3b", "amid-0.3b"]
    assert "the same variant as abkd-0.3b" in found.missing["abkd-0.8b"]


def test_an_average_over_fewer_sets_has_no_verdict(tmp_path: Path) -> None:
    variants = [Variant("amid[alpha=1,divergence=forward-kl]", 18.2)]
    run = write_described_run(tmp_path / "run", variants, sets=SETS)
    (cell,) = reproduced(run, load_published(), "amid-table-3").cells
    assert (cell.verdict, cell.reason) == ("", "the run lacks sets of this average")


def test_a_changed_setting_and_a_diverged_training_are_said(
    tmp_path: Path, published: Published
) -> None:
    variants = [Variant("jsd", 64.0, diverged=(1,))]
    run = write_described_run(tmp_path / "run", variants, settings=["recipe.lr=0.001"], sets=SETS)
    text = to_markdown(reproduced(run, published))
    assert "* run differs from the installed suite: recipe.lr: 0.004 -> 0.001" in text
    assert "* run: jsd: 1 of 3 trainings diverged" in text


def test_all_that_is_inferred_is_printed(found: Reproduction) -> None:
    text = to_markdown(found)
    rows = [f"{name}: {row.inferred}" for name, row in found.table.rows.items() if row.inferred]
    assert found.published.inferred
    assert rows
    for line in [*found.published.inferred, *found.table.inferred, *rows]:
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


def test_a_method_that_kdbench_lacks_is_listed(tmp_path: Path, run: Run) -> None:
    tree = yaml.safe_load(FILE.read_text())
    (table,) = [table for table in tree["tables"] if table["id"] == "pocl"]
    table["rows"]["jsd"] |= {"variant": None, "lacks": "not written yet"}
    table["rows"]["tvd"]["variant"] = "no-such-objective"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(tree))
    found = reproduced(run, load_published(tmp_path / "p.yaml"))
    assert found.missing["jsd"] == "kdbench lacks this method: not written yet"
    assert found.missing["tvd"].startswith("kdbench lacks this method: unknown objective")


# The command line


def test_on_the_real_command_line(tmp_path: Path, cli: Cli) -> None:
    planted(tmp_path / "results" / "mine", suite="instruct")
    arguments = ("reproduce", "pocl", "--scale", "tiny", "--from", "mine")
    printed = cli(*arguments, "--output", "out.csv").stdout
    assert "RANK AGREEMENT ONLY" in printed
    assert "Kendall's tau of 5 rows" in printed
    rows = pd.read_csv(tmp_path / "out.csv")
    assert set(rows["row"]) == set(load_published().table("pocl").rows)
    assert rows["verdict"].isna().all()


def test_list_shows_every_table(cli: Cli) -> None:
    printed = cli("reproduce", "--list").stdout
    for table in load_published().tables:
        assert table.id in printed
        assert table.paper.arxiv in printed


def test_a_tiny_table_expands_to_its_rows(cli: Cli) -> None:
    printed = cli("reproduce", "abkd", "--scale", "tiny", "--dry-run").stdout
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
    tmp_path: Path, cli: Cli, arguments: list[str], message: str
) -> None:
    run = planted(tmp_path / "mine", suite="instruct")
    (tmp_path / "there.md").write_text("mine")
    words = [word.replace("MINE", str(run.path)) for word in arguments]
    assert message in cli("reproduce", *words, check=2).stderr
    assert (tmp_path / "there.md").read_text() == "mine"


def test_a_suite_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setattr("kdbench.config.load.installed_suites", dict)
    assert "pocl needs dolly-gpt2, not installed here" in cli("reproduce", "pocl", check=2).stderr
    assert not (tmp_path / "results").exists()
