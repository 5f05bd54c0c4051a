"""The leaderboard: columns, figures recomputed from the rows, tiers, and what it says beneath."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from scipy import stats

from kdbench.base.errors import UserError
from kdbench.base.store import read_json, write_json
from kdbench.report.notes import notes
from kdbench.report.render import to_markdown
from kdbench.report.table import Board, build_board, leaderboard, stability_frame
from kdbench.runs.folder import Run
from kdbench.score import write_scores
from kdbench.stats.tiers import tiers
from tests.synthetic_run import SETS, Variant, write_run, write_trial

VARIANTS = [
    Variant("sft", 50.0),
    Variant("amid[alpha=-5]", 60.0, {"teacher_weight": 0.1, "alpha": -5.0}),
    Variant("forward-kl", 55.0),
]
METRICS = ["rouge_l", "rouge_l_greedy", "exact_match", "length", "distinct_2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "toy", VARIANTS)


@pytest.fixture(scope="module")
def frame(run: Run) -> pd.DataFrame:
    return leaderboard(run)


def row(frame: pd.DataFrame, variant: str, name: str, metric: str) -> Any:
    match = (frame.variant == variant) & (frame["set"] == name) & (frame.metric == metric)
    assert match.sum() == 1
    return frame[match].iloc[0]


def raw(run: Run, slug: str, seed: int) -> pd.DataFrame:
    return pd.read_parquet(run.trial(slug, seed).scores_path)


def seed_means(run: Run, slug: str, name: str, metric: str) -> list[float]:
    tables = [raw(run, slug, seed) for seed in range(3)]
    return [float(t[(t["set"] == name) & (t.metric == metric)].value.mean()) for t in tables]


def said(board: Board) -> str:
    return " ".join(notes(board))


def test_columns_are_the_tidy_ones_in_order(frame: pd.DataFrame) -> None:
    assert list(frame.columns) == [
        "variant", "objective", "params", "set", "metric", "mean", "ci_low", "ci_high", "sd_train",
        "n_seeds", "n_samples", "tier", "n_diverged", "mean_undiverged", "interval",
        "n_init_seeds", "sd_decoding",
    ]  # fmt: skip


def test_one_row_per_variant_set_and_metric(frame: pd.DataFrame) -> None:
    keys = set(zip(frame.variant, frame["set"], frame.metric, strict=True))
    names = [*(v.name for v in VARIANTS), "teacher", "initial student"]
    sets = ["average", *SETS]
    assert keys == {(v, s, m) for v in names for s in sets for m in METRICS}
    assert len(frame) == len(keys)


def test_mean_and_interval_are_over_seeds(run: Run, frame: pd.DataFrame) -> None:
    means = seed_means(run, "sft", "dolly", "rouge_l")
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    found = row(frame, "sft", "dolly", "rouge_l")
    assert (found["mean"], found.ci_low, found.ci_high) == pytest.approx(
        (np.mean(means), low, high)
    )
    assert found.sd_train == pytest.approx(np.std(means, ddof=1))
    assert (found.n_seeds, found.n_samples, found.interval) == (3, SETS["dolly"], "training seeds")


def test_average_is_the_unweighted_mean_over_sets_within_each_seed(
    run: Run, frame: pd.DataFrame
) -> None:
    means = np.mean([seed_means(run, "forward-kl", name, "rouge_l") for name in SETS], axis=0)
    found = row(frame, "forward-kl", "average", "rouge_l")
    assert (found["mean"], found.sd_train) == pytest.approx((means.mean(), means.std(ddof=1)))
    assert found.n_samples == sum(SETS.values())


def test_one_seed_has_an_interval_over_samples(run: Run, frame: pd.DataFrame) -> None:
    table = raw(run, "teacher", 0)
    values = table[(table["set"] == "vicuna") & (table.metric == "rouge_l")].value
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    found = row(frame, "teacher", "vicuna", "rouge_l")
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.interval == "samples"
    assert np.isnan(found.sd_train)
    whole = row(frame, "teacher", "dolly", "distinct_2")
    assert whole[["ci_low", "ci_high", "interval"]].isna().all()
    assert whole.n_samples == SETS["dolly"]


def test_several_decoding_seeds_are_averaged_within_a_sample(tmp_path: Path) -> None:
    run = write_run(tmp_path, [Variant("sft", 50.0, seeds=(0,))], references=False)
    values = {(0, 10): 10.0, (0, 20): 30.0, (1, 10): 50.0, (1, 20): 50.0}
    rows = [("dolly", s, d, "rouge_l", value) for (s, d), value in values.items()]
    write_scores(run.trial("sft", 0).scores_path, rows)
    found = row(leaderboard(run), "sft", "dolly", "rouge_l")
    low, high = stats.t.interval(0.95, 1, 35.0, stats.sem([20.0, 50.0]))
    assert (found["mean"], found.ci_low, found.ci_high) == pytest.approx((35.0, low, high))


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two trainings of one variant, each sampled with five decoding seeds."""
    folder = tmp_path_factory.mktemp("decoded") / "toy"
    run = write_run(folder, [Variant("sft", 50.0, seeds=(0, 1))], references=False)
    draw = np.random.default_rng(0)
    for seed in (0, 1):
        rows = [
            (name, sample, decoding, "rouge_l", float(draw.uniform(0, 100)))
            for name, size in (("dolly", 7), ("vicuna", 4))
            for sample in range(size)
            for decoding in (10, 20, 30, 40, 50)
        ]
        rows += [(name, 0, -1, "rouge_l_greedy", 50.0) for name in ("dolly", "vicuna")]
        write_scores(run.trial("sft", seed).scores_path, rows)
    return run


@pytest.mark.parametrize("name", ["dolly", "vicuna", "average"])
def test_sd_decoding_is_numpys_over_decoding_seeds_averaged_over_trainings(
    decoded: Run, frame: pd.DataFrame, name: str
) -> None:
    deviations = []
    for seed in (0, 1):
        table = raw(decoded, "sft", seed).query("metric == 'rouge_l'")
        by_set = table.pivot_table("value", "decoding_seed", "set")
        by_set["average"] = by_set.mean(axis=1)
        deviations.append(np.std(by_set[name], ddof=0))
    found = row(leaderboard(decoded), "sft", name, "rouge_l")
    assert found.sd_decoding == pytest.approx(np.mean(deviations))
    assert np.isnan(row(leaderboard(decoded), "sft", name, "rouge_l_greedy").sd_decoding)
    assert frame.sd_decoding.isna().all()


def test_tables_show_the_sd_over_decodings_where_there_are_several(decoded: Run, run: Run) -> None:
    board = build_board(decoded)
    text = to_markdown(board, "toy")
    shown = [cell.strip() for cell in text.splitlines()[4].split("|")[1:-1]]
    header = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    found = board.rows["sft", "average", "rouge_l"].sd_decoding
    assert shown[header.index("decoding sd")] == f"{found:.2f}"
    assert "over the 5 decoding seeds" in said(board)
    assert "decoding sd" not in to_markdown(build_board(run), "toy")


@pytest.mark.parametrize(
    ("dropout", "words"),
    [
        (0.0, "data order (trials train without dropout)"),
        (0.1, "data order and the dropout (probability 0.1), both alike"),
    ],
)
def test_what_a_training_seed_changes_follows_from_what_trials_say_of_dropout(
    tmp_path: Path, dropout: float, words: str
) -> None:
    run = write_run(tmp_path, [Variant("sft", 50.0)], references=False)
    for trial in run.trials():
        write_json(
            trial.path / "DONE.json", {**read_json(trial.path / "DONE.json"), "dropout": dropout}
        )
    assert words in said(build_board(run))


def test_trials_of_different_initial_students_are_said_to_be_unpaired(tmp_path: Path) -> None:
    run = write_run(tmp_path, VARIANTS)
    for place, trial in enumerate(run.trials()):
        weights = {"teacher": "same", "initial student": "one" if place else "other"}
        write_json(
            trial.path / "DONE.json", {**read_json(trial.path / "DONE.json"), "weights": weights}
        )
    text = said(build_board(run))
    assert "NOT PAIRED" in text
    assert "`initial student` (2 versions)" in text
    assert "`teacher`" not in text


def test_params_are_canonical_json(frame: pd.DataFrame) -> None:
    params = row(frame, "amid[alpha=-5]", "dolly", "rouge_l").params
    assert params == '{"alpha":-5.0,"teacher_weight":0.1}'
    assert json.loads(str(row(frame, "teacher", "dolly", "rouge_l").params)) == {}


def test_tiers_are_those_of_the_block_model(run: Run, frame: pd.DataFrame) -> None:
    slugs = {"amid[alpha=-5]": "amid-alpha--5", "forward-kl": "forward-kl", "sft": "sft"}
    y = np.array([seed_means(run, slug, "self-inst", "rouge_l") for slug in slugs.values()])
    found = [row(frame, name, "self-inst", "rouge_l").tier for name in slugs]
    assert found == list(tiers([y]).tier)
    assert found == [1, 2, 3]


def test_only_objectives_and_metrics_with_a_better_end_have_tiers(frame: pd.DataFrame) -> None:
    ranked = frame.metric.isin(["rouge_l", "rouge_l_greedy", "exact_match"])
    objective = ~frame.variant.isin(["teacher", "initial student"])
    assert (frame.tier.notna() == (ranked & objective)).all()


def test_rows_stand_teacher_first_then_by_rank_then_init(frame: pd.DataFrame) -> None:
    order = ["teacher", "amid[alpha=-5]", "forward-kl", "sft", "initial student"]
    assert list(frame.variant.drop_duplicates()) == order


def test_a_diverged_trial_counts_in_the_mean_and_ranks_last_in_its_tier(tmp_path: Path) -> None:
    wild = Variant("tvd", 75.0, diverged=(1,))
    run = write_run(tmp_path, [*VARIANTS, wild], references=False)
    found = row(leaderboard(run), "tvd", "dolly", "rouge_l")
    means = seed_means(run, "tvd", "dolly", "rouge_l")
    assert found["mean"] == pytest.approx(np.mean(means))
    assert found.mean_undiverged == pytest.approx(np.mean([means[0], means[2]]))
    assert found.n_diverged == 1
    board = build_board(run)
    average = board.rows["tvd", "average", "rouge_l"].mean_undiverged
    assert f"1/3 (else {average:.2f})" in to_markdown(board, "toy")
    assert leaderboard(run).query("variant != 'tvd'").mean_undiverged.isna().all()
    main = leaderboard(run).query("set == 'average' and metric == 'rouge_l'").set_index("variant")
    mates = list(main.index[main.tier == main.tier["tvd"]])
    assert len(mates) > 1
    assert mates[-1] == "tvd"
    slugs = {"amid[alpha=-5]": "amid-alpha--5", **{n: n for n in ("forward-kl", "sft", "tvd")}}
    y = np.array([seed_means(run, slug, "dolly", "rouge_l") for slug in slugs.values()])
    apart = tiers([y], [name == "tvd" for name in slugs]).p
    np.testing.assert_allclose(board.tiers["dolly", "rouge_l"].p, apart)
    assert not np.allclose(apart, tiers([y]).p)


def test_unequal_seeds_are_compared_on_the_common_ones(tmp_path: Path) -> None:
    extended = Variant("sft", 50.0, seeds=(0, 1, 2, 3))
    run = write_run(tmp_path, [extended, *VARIANTS[1:]], references=False)
    board = build_board(run)
    y = np.array(
        [seed_means(run, s, "dolly", "rouge_l") for s in ("amid-alpha--5", "forward-kl", "sft")]
    )
    np.testing.assert_allclose(board.tiers["dolly", "rouge_l"].p, tiers([y]).p)
    assert board.rows["sft", "dolly", "rouge_l"].n_seeds == 4
    assert "(0, 1, 2)" in said(board)


def test_without_a_common_seed_nothing_is_compared(tmp_path: Path) -> None:
    variants = [Variant("sft", 50.0, seeds=(0,)), Variant("tvd", 55.0, seeds=(1,))]
    board = build_board(write_run(tmp_path, variants))
    assert not board.tiers
    assert "no training seed in common" in said(board)


def test_one_seed_compares_over_samples_and_says_so(tmp_path: Path) -> None:
    variants = [Variant("sft", 40.0, seeds=(0,)), Variant("tvd", 60.0, seeds=(0,))]
    board = build_board(write_run(tmp_path, variants, references=False))
    assert [board.rows[name, "average", "rouge_l"].tier for name in ("tvd", "sft")] == [1, 2]
    assert "block = prompt" in said(board)
    assert "sign-flip" not in said(board)


def test_unfinished_trials_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, VARIANTS, references=False)
    (run.trial("sft", 2).path / "DONE.json").unlink()
    assert row(leaderboard(run), "sft", "dolly", "rouge_l").n_seeds == 2
    for trial in run.trials():
        (trial.path / "DONE.json").unlink(missing_ok=True)
    assert leaderboard(run).empty


def test_trials_scored_on_different_samples_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, VARIANTS, references=False)
    write_trial(run, VARIANTS[0], 1, sets={**SETS, "dolly": 39})
    with pytest.raises(UserError, match="different sets"):
        leaderboard(run)


def test_notes_say_what_intervals_seeds_tiers_and_prompts_are(run: Run) -> None:
    text = said(build_board(run))
    for part in (
        "over 3 training seeds",
        "† marks one training seed",
        "training seed is the data order",
        "randomised-block model",
        "Holm",
        "dolly 40, self-inst 30, vicuna 20",
        "2/2^3 = 0.25",
        "`clipped`",
    ):
        assert part in text
    assert "diverged trial" not in text
    assert "separate paired t-tests" not in text


def test_the_fallback_is_said(tmp_path: Path) -> None:
    calm = [Variant(f"calm-{i}", 55.0, noise=0.001, seeds=range(8)) for i in range(7)]
    wild = Variant("wild", 50.0, noise=9.0, seeds=range(8))
    board = build_board(write_run(tmp_path, [*calm, wild], steps=0, references=False))
    assert board.tiers["average", "rouge_l"].method == "separate"
    assert "rouge_l on average (p = " in said(board)


def test_markdown_has_a_line_per_variant_and_sets_as_columns(run: Run) -> None:
    board = build_board(run)
    lines = to_markdown(board, "toy").splitlines()
    assert lines[2] == (
        "| variant | tier | average | greedy | dolly | self-inst | vicuna | exact match | diverged "
        "| clipped | train s |"
    )
    best = board.rows["amid[alpha=-5]", "average", "rouge_l"]
    half = (best.ci_high - best.ci_low) / 2
    cells = lines[5].split(" | ")
    assert cells[:3] == ["| `amid[alpha=-5]`", "1", f"**{best.mean:.2f} ± {half:.2f}**"]
    assert lines[4].startswith("| `teacher` |  |")
    assert "†" in lines[4]


def test_no_name_or_title_breaks_the_markdown_or_brings_a_link(tmp_path: Path) -> None:
    names = ["a|b", "a`b", "``a``", "a\nb", "[a](http://b)", "<b>a</b>", "**a**", "a\\", "_a_"]
    board = build_board(write_run(tmp_path, [Variant(f"x{n}y", 50.0) for n in names]))
    for title in names:
        tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(to_markdown(board, title))
        inline = [token for token in tokens if token.type == "inline"]
        assert inline[0].children is not None
        assert {child.type for child in inline[0].children} == {"text"}
        assert "".join(c.content for c in inline[0].children) == " ".join(title.split())
    assert not any(child.type == "link_open" for t in inline for child in t.children or [])
    firsts = [tokens[i + 2] for i, token in enumerate(tokens) if token.type == "tr_open"][1:]
    shown = [child.content for token in firsts for child in token.children or []]
    assert shown == [" ".join(name.split()) for name in board.trials]


def test_stability_has_one_row_per_objective_variant(run: Run) -> None:
    table = stability_frame(build_board(run))
    assert sorted(table.variant) == sorted(v.name for v in VARIANTS)
    averages = np.mean([seed_means(run, "sft", name, "rouge_l") for name in SETS], axis=0)
    sd = averages.std(ddof=1)
    assert table.set_index("variant").rouge_l_sd["sft"] == pytest.approx(sd)


def test_one_seed_and_one_prompt_are_empty_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    run = write_run(tmp_path / "seed", [Variant("sft", 50.0, seeds=(0,))], references=False)
    line = stability_frame(build_board(run)).to_csv(index=False).splitlines()[1]
    assert line.endswith(",,,")
    assert "nan" not in line.lower()
    variants = [Variant(name, 50.0, seeds=(0,)) for name in ("sft", "tvd")]
    frame = leaderboard(write_run(tmp_path / "one prompt", variants, sets={"dolly": 1}))
    assert frame[["tier", "ci_low", "ci_high", "interval"]].isna().all().all()


def test_a_run_made_by_commands_that_differ_says_so(run: Run) -> None:
    write_json(run.path / "provenance.json", {"commands": [], "mixed": ["jobs", "versions"]})
    assert "differed in jobs, versions" in " ".join(notes(build_board(run)))
    write_json(run.path / "provenance.json", {"commands": [], "mixed": []})
    assert "differed" not in " ".join(notes(build_board(run)))
