"""What a run's evidence files say, on runs with figures of our choosing."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.base.store import read_jsonl, write_jsonl
from kdbench.report.evidence import write_evidence
from kdbench.report.table import AVERAGE, build_board
from kdbench.runs.folder import Run
from tests.synthetic_run import Variant, write_run, write_spec, write_trial

VARIANTS = [
    Variant("jsd", 58.2),
    Variant("amid[alpha=-5]", 60.4, {"alpha": -5.0}),
    Variant("tvd", 57.8),
    Variant("skew-kl", 60.0, diverged=(1,)),
    Variant("sft", 54.0),
]
SPIKE = 41
FILES = {
    "evidence.md",
    "comparisons.csv",
    "ranks.csv",
    "variance.csv",
    "stability.md",
    "spikes.csv",
    "stability_comparisons.csv",
}
ALONE = {"stability.md", "spikes.csv", "stability_comparisons.csv"}


def written(run: Run) -> set[str]:
    return {path.name for path in run.path.iterdir() if path.is_file()} - {"spec.yaml"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("runs") / "toy", VARIANTS)
    log = read_jsonl(run.trial("tvd", 2).train_log)
    log[SPIKE - 1]["loss"] *= 5
    write_jsonl(run.trial("tvd", 2).train_log, log)
    write_evidence(run, build_board(run))
    return run


def table(run: Run, name: str, metric: str = "rouge_l") -> pd.DataFrame:
    """A table of the run; of one with a column `metric`, the rows of this one."""
    frame = pd.read_csv(run.path / f"{name}.csv")
    if "metric" not in frame:
        return frame
    return frame[frame["metric"] == metric].reset_index(drop=True)


def test_evidence_is_files_and_plots(run: Run) -> None:
    assert written(run) == FILES
    plots = {path.name for path in (run.path / "plots").iterdir()}
    assert plots == {
        f"{name}.{suffix}" for name in ("ranks", "profiles") for suffix in ("png", "svg")
    }


def test_comparisons_are_those_of_the_tiers(run: Run) -> None:
    board, rows = build_board(run), table(run, "comparisons")
    names = sorted(board.stability)
    for row in rows.itertuples():
        found = board.tiers[str(row.set), "rouge_l"]
        i, j = names.index(str(row.variant)), names.index(str(row.other))
        means = [board.rows[names[place], str(row.set), "rouge_l"].mean for place in (i, j)]
        assert row.difference == pytest.approx(means[0] - means[1])
        assert row.p_holm == pytest.approx(found.p[i, j])
        assert row.ci_high - row.ci_low == pytest.approx(2 * found.half_width[i, j])  # type: ignore[operator]
    assert len(rows) == 10 * 4


def test_no_p_stands_without_its_effect_and_interval(run: Run) -> None:
    rows = table(run, "comparisons")
    assert (
        rows[["difference", "ci_low", "ci_high", "effect_low", "effect_high"]]
        .notna()
        .all(axis=None)
    )
    assert (rows["p_sign_flip"] >= rows["smallest_p_sign_flip"]).all()
    assert (rows["smallest_p_sign_flip"] == 0.25).all()


def test_ranks_hold_both_intervals_by_their_names(run: Run) -> None:
    board, rows = build_board(run), table(run, "ranks")
    for row in rows.itertuples():
        own = board.rows[str(row.variant), str(row.set), "rouge_l"]
        assert (row.mean, row.t_low, row.t_high) == pytest.approx(
            (own.mean, own.ci_low, own.ci_high)
        )
    assert (rows["bootstrap_low"] < rows["mean"]).all()
    assert rows.groupby("set")["best_share"].sum().to_numpy() == pytest.approx(1)


def test_a_diverged_variant_is_not_in_the_pooled_variance(run: Run, tmp_path: Path) -> None:
    calm = write_run(tmp_path / "calm", [v for v in VARIANTS if not v.diverged])
    write_evidence(calm, build_board(calm))
    pooled = [
        rows[rows["scope"].isin(["row", "difference"])].reset_index(drop=True)
        for rows in (table(run, "variance"), table(calm, "variance"))
    ]
    pd.testing.assert_frame_equal(*pooled)
    assert "skew-kl" in set(table(run, "variance")["scope"])


def test_contributions_of_a_difference_give_its_error(run: Run) -> None:
    rows = table(run, "variance")
    rows = rows[(rows["set"] == AVERAGE) & (rows["scope"] == "difference")]
    seeds = rows[rows["component"].str.contains("training seed")]["contribution"].sum()
    board = build_board(run)
    names = sorted(board.stability)
    i, j = names.index("jsd"), names.index("tvd")
    half = board.tiers[AVERAGE, "rouge_l"].half_width[i, j]
    assert half == pytest.approx(np.sqrt(seeds) * 2.4469, rel=1e-4)


def test_spikes_are_listed_with_trial_and_step(run: Run) -> None:
    (row,) = table(run, "spikes").itertuples()
    assert (row.variant, row.seed, row.step, row.length) == ("tvd", 2, SPIKE, 1)
    text = (run.path / "stability.md").read_text(encoding="utf-8")
    assert f"| `tvd` | 2 | {SPIKE} | 1 |" in text
    assert f"kdbench data batch RUN --seed 2 --step {SPIKE}" in text


def test_spikes_on_one_batch_are_counted_together(tmp_path: Path) -> None:
    run = write_run(tmp_path, VARIANTS[:3])
    for name, seed in (("jsd", 1), ("tvd", 1), ("tvd", 2)):
        log = read_jsonl(run.trial(name, seed).train_log)
        log[SPIKE - 1]["loss"] *= 5
        write_jsonl(run.trial(name, seed).train_log, log)
    write_evidence(run, build_board(run))
    rows = table(run, "spikes").set_index(["variant", "seed"])["others"]
    assert rows.to_dict() == {("jsd", 1): 1, ("tvd", 1): 1, ("tvd", 2): 0}


def test_pairs_of_variants_are_compared_by_stability_with_intervals(run: Run) -> None:
    board, rows = build_board(run), table(run, "stability_comparisons")
    assert rows[["difference", "ci_low", "ci_high", "p_holm"]].notna().all(axis=None)
    assert set(rows["figure"]) >= {"diverged", "gradient CV", "spikes"}
    first, other = next(iter(combinations(board.stability, 2)))
    pair = rows[(rows.variant == first) & (rows.other == other)].set_index("figure")
    logs = [
        np.log([t.grad_norm_cv for t in board.stability[name].trials]) for name in (first, other)
    ]
    assert pair["difference"]["gradient CV"] == pytest.approx(np.mean(logs[0] - logs[1]))
    diverged = rows[
        (rows.figure == "diverged") & (rows[["variant", "other"]] == "skew-kl").any(axis=1)
    ]
    assert diverged["difference"].abs().to_numpy() == pytest.approx(1 / 3)
    assert (diverged["p_holm"] == 1).all()


def test_stability_is_ordered_with_diverged_variants_last(run: Run) -> None:
    text = (run.path / "stability.md").read_text(encoding="utf-8")
    rows = [line for line in text.partition("##")[0].splitlines() if line.startswith("| `")]
    assert rows[-1].startswith("| `skew-kl` | 1/3 (6 to 79 %)")
    assert len(rows) == len(VARIANTS)


def test_decoding_seeds_are_told_apart(tmp_path: Path) -> None:
    variants = [Variant("jsd", 48.0), Variant("tvd", 47.0)]
    run = write_run(tmp_path, variants, references=False)
    for variant in variants:
        for seed in variant.seeds:
            add_decodings(run, variant, seed)
    write_evidence(run, build_board(run))
    rows = table(run, "variance")
    rows = rows[(rows["set"] == "dolly") & (rows["scope"] == "row")].set_index("component")
    assert rows.loc["decoding seed", "variance"] == pytest.approx(8.0, rel=1e-6)


def add_decodings(run: Run, variant: Variant, seed: int) -> None:
    """A second decoding of every answer, four points better."""
    path = run.trial(variant.name, seed).scores_path
    rows = pd.read_parquet(path)
    again = rows[rows["metric"] == "rouge_l"].assign(decoding_seed=20)
    again["value"] += 4
    pd.concat([rows, again]).to_parquet(path)


def test_one_training_seed_is_said_and_claims_nothing_about_others(tmp_path: Path) -> None:
    run = write_run(tmp_path, [Variant("jsd", 58.0, seeds=(0,)), Variant("tvd", 57.0, seeds=(0,))])
    write_evidence(run, build_board(run))
    text = (run.path / "evidence.md").read_text(encoding="utf-8")
    assert (
        "One training seed: how much another training would move the figures is not known" in text
    )
    assert table(run, "ranks")[["t_low", "t_high"]].isna().all(axis=None)
    assert (
        table(run, "comparisons")[["effect_low", "p_sign_flip", "improvement"]]
        .isna()
        .all(axis=None)
    )


def test_one_variant_has_stability_and_nothing_to_compare(tmp_path: Path) -> None:
    run = write_run(tmp_path, [Variant("jsd", 58.0)])
    write_evidence(run, build_board(run))
    assert written(run) == ALONE


def test_variants_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_trial(run, Variant("jsd", 58.0), 0)
    write_trial(run, Variant("tvd", 57.0), 1)
    write_spec(run)
    write_evidence(run, build_board(run))
    assert written(run) == ALONE


def test_a_variant_that_never_gets_there_has_no_tier_of_steps(run: Run, tmp_path: Path) -> None:
    slow = write_run(tmp_path, [Variant("jsd", 58.0), Variant("tvd", 57.0), Variant("sft", 20.0)])
    write_evidence(slow, build_board(slow))
    text = (slow.path / "stability.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.partition("##")[0].splitlines() if line.startswith("| `sft`")]
    assert "| never |" in row


def test_tables_hold_both_decodings(run: Run) -> None:
    board, rows = build_board(run), table(run, "ranks", "rouge_l_greedy")
    assert len(rows) == len(table(run, "ranks"))
    for row in rows.itertuples():
        own = board.rows[str(row.variant), str(row.set), "rouge_l_greedy"]
        assert (row.mean, row.t_low) == pytest.approx((own.mean, own.ci_low))
    assert table(run, "comparisons", "rouge_l_greedy")["p_holm"].notna().all()
    for name in ("ranks", "comparisons", "variance"):
        frame = pd.read_csv(run.path / f"{name}.csv")
        assert set(frame["metric"]) == {"rouge_l", "rouge_l_greedy"}
    assert "## Under greedy decoding" in (run.path / "evidence.md").read_text(encoding="utf-8")
