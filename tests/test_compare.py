"""`kdbench compare`: against scipy's tests on the stored scores, and what it says of two runs."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdbench.base.errors import UserError
from kdbench.base.store import read_json, write_json
from kdbench.cli import main
from kdbench.compare import Pair, compare, labels, to_markdown
from kdbench.report.table import leaderboard
from kdbench.runs.folder import Run
from kdbench.stats.intervals import Floats
from tests.compare_runs import write_described_run
from tests.conftest import Cli
from tests.synthetic_run import SETS, Variant

NAMES = ("sft", "tvd", "jsd", "forward-kl")
LEVELS = {"sft": 54.0, "tvd": 57.0, "jsd": 58.0, "forward-kl": 56.0}


def variants(shift: float = 0.0, noise: float = 0.3, **changes: object) -> list[Variant]:
    """Four variants, sft shifted; the draws are the same, and `noise` says how large they are."""
    return [
        Variant(name, LEVELS[name] + shift * (name == "sft"), noise=noise, **changes)  # type: ignore[arg-type]
        for name in NAMES
    ]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_described_run(tmp_path_factory.mktemp("a") / "first", variants(), answers=True)


@pytest.fixture(scope="module")
def noisier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same variants with more noise, sft higher by 6, and another learning rate."""
    return write_described_run(
        tmp_path_factory.mktemp("b") / "noisier",
        [*variants(6.0, noise=0.9), Variant("reverse-kl", 59.0)],
        settings=["recipe.lr=0.001"],
    )


@pytest.fixture(scope="module")
def pair(first: Run, noisier: Run) -> Pair:
    return against(first, noisier)


def against(first: Run, other: Run) -> Pair:
    (pair,) = compare([first, other], [first.path.name, other.path.name])
    return pair


def column(pair: Pair, name: str = "average", metric: str = "rouge_l") -> pd.DataFrame:
    rows = pair.rows[(pair.rows["set"] == name) & (pair.rows["metric"] == metric)]
    return rows.set_index("variant")


def figures(run: Run, variant: str, sets: tuple[str, ...] = tuple(SETS)) -> Floats:
    """[seeds], ROUGE-L on average over sets, read with pandas from the Parquet files."""
    values = []
    for path in sorted(run.path.glob(f"trials/{variant}/seed-*/scores.parquet")):
        scores = pd.read_parquet(path).query("metric == 'rouge_l' and set in @sets")
        values.append(scores.groupby("set")["value"].mean().mean())
    return np.array(values)


def test_same_training_is_paired_by_seed(first: Run, noisier: Run, pair: Pair) -> None:
    rows = column(pair)
    assert pair.unseeded == ""
    assert set(rows.loc[list(NAMES), "pairing"]) == {"seed"}
    for name in NAMES:
        expected = figures(noisier, name) - figures(first, name)
        assert rows.loc[name, "difference"] == pytest.approx(expected.mean())
    differences = np.array([figures(noisier, n) - figures(first, n) for n in sorted(NAMES)])
    pooled = differences.var(axis=1, ddof=1).mean()
    half = rows.loc[sorted(NAMES), "ci_high"] - rows.loc[sorted(NAMES), "difference"]
    assert half.to_numpy() == pytest.approx(half.iloc[0])
    assert stats.t.ppf(0.975, 8) < half.iloc[0] / np.sqrt(pooled / 3) < stats.t.ppf(0.975, 2)


def test_a_shift_is_beyond_noise_and_noise_is_not(pair: Pair) -> None:
    beyond = column(pair)["beyond_noise"]
    assert beyond["sft"] is True
    assert not beyond[["tvd", "jsd", "forward-kl"]].any()
    text = to_markdown([pair])
    assert "beyond noise (Holm's correction over 4 variants, 5 %): 1 of 4, 1 up and 0 down" in text
    assert "3 seeds can give no p below 0.25 in an exact sign-flip test" in text


def test_sign_flips_are_exact(first: Run, noisier: Run, pair: Pair) -> None:
    rows = column(pair)
    differences = figures(noisier, "sft") - figures(first, "sft")
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert rows.loc["sft", "p_sign_flip"] == pytest.approx(expected.pvalue)
    assert rows.loc["sft", "smallest_p_sign_flip"] == 0.25


def test_other_batches_are_compared_by_welchs_test(first: Run, tmp_path: Path) -> None:
    other = write_described_run(
        tmp_path / "b", variants(2.0, noise=0.9)[:2], settings=["recipe.batch=8"]
    )
    pair = against(first, other)
    rows = column(pair)
    assert "recipe.batch differs" in pair.unseeded
    assert set(rows.loc[["sft", "tvd"], "pairing"]) == {"sample"}
    p = [
        stats.ttest_ind(figures(other, name), figures(first, name), equal_var=False).pvalue
        for name in ("sft", "tvd")
    ]
    np.testing.assert_allclose(rows.loc[["sft", "tvd"], "p"], p)
    np.testing.assert_allclose(sorted(rows.loc[["sft", "tvd"], "p_holm"])[0], 2 * min(p))


def test_one_seed_is_compared_over_the_prompts(tmp_path: Path) -> None:
    runs = [
        write_described_run(tmp_path / str(seed), variants(4.0 * seed, seeds=(seed,)))
        for seed in (0, 1)
    ]
    pair = against(*runs)
    row = column(pair, "dolly").loc["sft"]
    scores = [
        pd.read_parquet(run.path / f"trials/sft/seed-{seed}/scores.parquet").query(
            "metric == 'rouge_l' and set == 'dolly'"
        )["value"]
        for seed, run in enumerate(runs)
    ]
    expected = stats.ttest_rel(scores[1].to_numpy(), scores[0].to_numpy())
    limits = expected.confidence_interval()
    assert pair.unseeded == "they share fewer than two training seeds"
    assert (row["pairing"], row["interval"]) == ("sample", "samples")
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((limits.low, limits.high))
    assert (row["prompts_low"], row["prompts_high"]) == pytest.approx((limits.low, limits.high))


def test_other_prompts_are_unpaired_and_less_sure(first: Run, pair: Pair, tmp_path: Path) -> None:
    other = write_described_run(tmp_path / "b", variants(6.0, noise=0.9), data_digest="d1")
    unpaired, paired = column(against(first, other)), column(pair)
    assert set(unpaired.loc[list(NAMES), "pairing"]) == {"none"}
    assert set(unpaired.loc[list(NAMES), "interval"]) == {"training seeds and samples"}
    width = [rows.loc["sft", "ci_high"] - rows.loc["sft", "ci_low"] for rows in (unpaired, paired)]
    assert width[0] > 2 * width[1]


def test_a_copy_is_identical(first: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(first.path, tmp_path / "copy")))
    pair = against(first, copy)
    rows = pair.rows
    assert (rows["difference"] == 0).all()
    assert (rows["p"].dropna() == 1).all()
    assert rows["identical"].all()
    text = to_markdown([pair])
    assert (
        "identical: 4 of 4 variants (every score of every sample, and every answer byte for byte); "
        "teacher and initial student too" in text
    )
    assert "Nothing." in text


def test_one_other_answer_is_said(first: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(first.path, tmp_path / "copy")))
    answers = copy.path / "trials/sft/seed-1/generations/dolly.jsonl"
    answers.write_text(answers.read_text().replace("sampled", "tampled", 1))
    text = to_markdown([against(first, copy)])
    assert "identical: 4 of 4 variants (every score of every sample); some of their" in text


def test_one_other_score_is_not_identical(first: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(first.path, tmp_path / "copy")))
    path = copy.path / "trials/tvd/seed-2/scores.parquet"
    scores = pd.read_parquet(path)
    scores.loc[scores.index[3], "value"] += 1e-9
    scores.to_parquet(path)
    assert "identical: 3 of 4 variants" in to_markdown([against(first, copy)])


def test_spec_machine_and_variants_are_told_apart(pair: Pair) -> None:
    assert pair.spec == ["suite.recipe.lr: 0.004 -> 0.001"]
    assert pair.facts == []
    assert pair.only_other == ["reverse-kl"]
    assert "only in noisier: reverse-kl" in to_markdown([pair])


def test_other_parameters_of_a_variant_are_said(tmp_path: Path) -> None:
    runs = [
        write_described_run(tmp_path / name, [Variant("amid", 60.0, {"alpha": alpha})])
        for name, alpha in (("a", -3.0), ("b", -5.0))
    ]
    assert against(*runs).definitions == ["amid.params.alpha: -3.0 -> -5.0"]


def test_other_initial_students_are_not_paired_by_seed(first: Run, tmp_path: Path) -> None:
    other = write_described_run(tmp_path / "b", variants(), init="cc" * 32)
    pair = against(first, other)
    assert pair.unseeded == "the initial students differ"
    assert pair.facts == [f'weights.initial student: "{"aa" * 32}" -> "{"cc" * 32}"']
    assert 'weights.initial student: "aaaaaaaaaaaa" -> "cccccccccccc"' in to_markdown([pair])


def test_commands_that_knew_fewer_models_leave_the_runs_paired(first: Run, tmp_path: Path) -> None:
    other = write_described_run(tmp_path / "b", variants())
    path = other.path / "provenance.json"
    known = read_json(path)["commands"][0]
    more = known | {"weights": known["weights"] | {"initial student 1": "dd" * 32}}
    stopped = known | {"weights": {"teacher": known["weights"]["teacher"]}}
    write_json(path, {"commands": [stopped, known, more], "mixed": []})
    pair = against(first, other)
    assert pair.unseeded == ""
    assert pair.facts == [f'weights.initial student 1: null -> "{"dd" * 32}"']


def test_a_board_is_compared_by_its_tables(first: Run, noisier: Run, tmp_path: Path) -> None:
    board = tmp_path / "boards" / "instruct"
    board.mkdir(parents=True)
    leaderboard(noisier).to_csv(board / "leaderboard.csv", index=False)
    for name in ("spec.yaml", "provenance.json"):
        shutil.copyfile(noisier.path / name, board / name)
    rows = column(against(first, Run(board)))
    assert rows.loc["sft", "pairing"] == "sample"
    assert rows.loc["sft", "difference"] == pytest.approx(
        figures(noisier, "sft").mean() - figures(first, "sft").mean()
    )
    both = column(against(Run(board), Run(board)))
    assert both["identical"].all()


def test_two_boards_are_compared_by_welchs_test(first: Run, noisier: Run, tmp_path: Path) -> None:
    boards = []
    for run in (first, noisier):
        board = tmp_path / run.path.name
        board.mkdir()
        leaderboard(run).to_csv(board / "leaderboard.csv", index=False)
        shutil.copyfile(run.path / "spec.yaml", board / "spec.yaml")
        boards.append(Run(board))
    rows = column(against(*boards))
    for name in NAMES:
        expected = stats.ttest_ind(figures(noisier, name), figures(first, name), equal_var=False)
        assert rows.loc[name, "p"] == pytest.approx(expected.pvalue)


def test_sets_that_one_run_has_are_left_out(first: Run, tmp_path: Path) -> None:
    other = write_described_run(tmp_path / "b", variants(), sets={"dolly": 40, "koala": 10})
    pair = against(first, other)
    assert set(pair.rows["set"]) == {"average", "dolly"}
    expected = figures(first, "sft", ("dolly",)).mean()
    assert column(pair).loc["sft", "mean_first"] == pytest.approx(expected)
    assert "sets only in b, not compared: koala" in to_markdown([pair])


def test_rank_agreement_is_kendalls(first: Run, noisier: Run, pair: Pair) -> None:
    tau = pair.tau["average"]
    means = [[figures(run, name).mean() for name in NAMES] for run in (first, noisier)]
    assert tau.mean == pytest.approx(stats.kendalltau(*means).statistic)


def test_a_diverged_training_is_no_part_of_the_pooled_noise(first: Run, tmp_path: Path) -> None:
    other = write_described_run(
        tmp_path / "b", [Variant("sft", 54.0, diverged=(1,)), *variants(noise=0.9)[1:]]
    )
    rows = column(against(first, other))
    widths = rows["ci_high"] - rows["ci_low"]
    assert widths["sft"] > 10 * widths["tvd"]
    assert not rows.loc["sft", "beyond_noise"]


def test_every_run_is_compared_with_the_first(first: Run, noisier: Run) -> None:
    pairs = compare([first, noisier, first], ["a", "b", "c"])
    assert [(pair.first.name, pair.other.name) for pair in pairs] == [("a", "b"), ("a", "c")]
    assert pairs[1].rows["identical"].all()


def test_labels_are_short_where_they_differ() -> None:
    runs = [Run(Path("/x/results/instruct")), Run(Path("/x/results/boards/instruct"))]
    assert labels(runs, ["instruct", "/x/results/boards/instruct"]) == [
        "instruct",
        "boards/instruct",
    ]
    twins = [Run(Path("a/instruct")), Run(Path("b/instruct"))]
    assert labels(twins, ["a/instruct", "b/instruct"]) == ["a/instruct", "b/instruct"]


def test_runs_without_a_common_variant_or_set_are_refused(first: Run, tmp_path: Path) -> None:
    other = write_described_run(tmp_path / "b", [Variant("minillm", 60.0)])
    with pytest.raises(UserError, match="no variant in common"):
        against(first, other)
    other = write_described_run(tmp_path / "c", variants(), sets={"koala": 10})
    with pytest.raises(UserError, match="no evaluation set in common"):
        against(first, other)


def test_an_unfinished_run_is_refused_and_a_half_finished_one_is_said(
    first: Run, tmp_path: Path
) -> None:
    copy = Run(Path(shutil.copytree(first.path, tmp_path / "copy")))
    (copy.path / "trials/sft/seed-2/DONE.json").unlink()
    pair = against(first, copy)
    assert pair.seeds == [0, 1]
    assert "copy: 1 trial not finished, left out" in to_markdown([pair])
    for path in copy.path.glob("trials/*/seed-*/DONE.json"):
        path.unlink()
    with pytest.raises(UserError, match="no finished trial to compare"):
        against(first, copy)


def test_on_the_real_command_line(
    first: Run, noisier: Run, pair: Pair, tmp_path: Path, cli: Cli
) -> None:
    names = (str(first.path), str(noisier.path))
    result = cli("compare", *names, "--output", "out.csv")
    assert "noisier against first" in result.stdout
    assert "paired by training seed (0, 1, 2) and sample" in result.stdout
    rows = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(
        rows[["variant", "difference", "p_holm"]],
        pair.rows[["variant", "difference", "p_holm"]],
        check_dtype=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FIRST", "absent"], "no run 'absent'"),
        (["FIRST"], "name at least two runs"),
        (["FIRST", "FIRST", "--output", "out.pdf"], "has to end in .md or .csv"),
        (["FIRST", "FIRST", "--output", "there.md"], "--force replaces it"),
        (["FIRST", "FIRST", "--output", "folder.md"], "a folder of that name"),
        (["FIRST", "FIRST", "--output", "there.md/x.md"], "there.md"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(
    first: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.md").write_text("mine")
    Path("folder.md").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["compare", *(word.replace("FIRST", str(first.path)) for word in arguments)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert Path("there.md").read_text() == "mine"


def test_markdown_is_what_is_compared(first: Run, noisier: Run, pair: Pair, tmp_path: Path) -> None:
    output = tmp_path / "out.md"
    output.write_text("old")
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, (first.path, noisier.path, "--output", output, "--force"))])
    assert stop.value.code == 0
    assert output.read_text() == to_markdown([pair])
    assert "| `sft` |" in output.read_text()
