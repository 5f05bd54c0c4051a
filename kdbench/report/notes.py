"""What a reader must know to read a run's table."""

import math

from kdbench.report.table import Board
from kdbench.stats.tiers import HOMOGENEITY_LEVEL, LEVEL

SAMPLES_MARK = "†"
"""Marks an interval that is over samples."""


def notes(board: Board) -> list[str]:
    """Sentences to stand beneath the table, each one only where it applies."""
    return [
        note
        for note in (
            _unlike(board),
            _figures(board),
            _budget(board),
            _intervals(board),
            _decodings(board),
            _seed_meaning(board),
            _tiers(board),
            _fallback(board),
            _common_seeds(board),
            _set_aside(board),
            _sign_flip(board),
            _diverged(board),
            _clipped(board),
            _cost(board),
            _mixed(board),
        )
        if note
    ]


def _mixed(board: Board) -> str:
    if not board.mixed:
        return ""
    return (
        f"The commands that made this run differed in {', '.join(board.mixed)} "
        "(provenance.json says how): its rows are not byte for byte what one command would give."
    )


def _unlike(board: Board) -> str:
    if not board.unlike:
        return ""
    models = ", ".join(f"`{name}` ({count} versions)" for name, count in board.unlike.items())
    return (
        "NOT PAIRED: the trials do not all depend on the same weights of the models that they "
        f"should share: {models}. Part of the run was made on another machine or with other "
        "versions, which made these models anew (DONE.json of each trial has the digests). "
        "Differences between the rows of the two parts hold the difference of those models too."
    )


def _decodings(board: Board) -> str:
    if not board.decodings:
        return ""
    return (
        f"`decoding sd` is the standard deviation (ddof 0) of `average` over the {board.decodings} "
        "decoding seeds of one student, the mean over trainings: what most papers print after ±. "
        "It says nothing about another training. leaderboard.csv has it for each set."
    )


def _figures(board: Board) -> str:
    sizes = {row.set: row.n_samples for row in board.rows.values()}
    prompts = ", ".join(f"{name} {sizes[name]}" for name in board.sets)
    greedy = any(row.metric == "rouge_l_greedy" for row in board.rows.values())
    return (
        "Figures are ROUGE-L F-measures (0 to 100) under the suite's sampled decoding"
        f"{', and greedy where said' if greedy else ''}; `average` is the unweighted mean of the "
        f"sets; exact match is on average over the sets. Prompts: {prompts}."
    )


def _budget(board: Board) -> str:
    if not board.stability:
        return ""
    if board.budget == "fixed":
        return (
            "Nothing was tuned for this table: a variant has its paper's parameters, or those in "
            "its name, and the suite's learning rate where its name has none."
        )
    return (
        f"tuned: {board.budget} trials each on dev. Every objective had as many candidates, the "
        "first what was asked for; dev chose by sampled ROUGE-L, and the chosen were trained anew "
        "with the seeds of this table. tuning.md has all candidates and what choosing gained."
    )


def _intervals(board: Board) -> str:
    counts = sorted({row.n_seeds for row in board.rows.values() if row.n_seeds > 1})
    seeds = " or ".join(map(str, counts))
    over = {row.interval for row in board.rows.values()}
    parts = []
    if "training seeds" in over:
        parts.append(f"± is half the 95 % Student-t interval over {seeds} training seeds")
    if "samples" in over:
        parts.append(
            f"{SAMPLES_MARK} marks one training seed: there ± is half the 95 % Student-t interval "
            "over the prompts, and says nothing about another training"
        )
    return "; ".join(parts) + "." if parts else ""


def _seed_meaning(board: Board) -> str:
    if not board.stability:
        return ""
    count = len(board.init_seeds)
    if count > 1:
        return (
            f"The training seed is the data order{_noise(board)}. Each was run from {count} "
            "initial students, and its figure is the mean over them: ± and the tiers "
            f"hold for these {count}; evidence.md has intervals that hold for others too."
        )
    return (
        "All trials start from one initial student, so the training seed is the data "
        f"order{_noise(board)}. What another initial student would give is in no interval here."
    )


def _noise(board: Board) -> str:
    if board.dropout == 0:
        return " (trials train without dropout)"
    return f" and the dropout (probability {board.dropout:g}), both alike for all objectives"


def _tiers(board: Board) -> str:
    if not board.tiers or len(board.stability) < 2:
        return ""
    if len(board.seeds) > 1:
        block = "training seed"
    else:
        block = "prompt, since there is one training seed to compare"
    pooled = any(result.method == "pooled" for result in board.tiers.values())
    model = "a randomised-block model with one error variance for all variants"
    return (
        f"Tiers are each column's own, the one shown is of `average`; bold is tier 1. Rows that "
        f"cannot be told from the tier's best at a family-wise error of {LEVEL:g} share it "
        f"(paired comparisons of all pairs, Holm's correction, "
        f"{model if pooled else 'separate t-tests'}; block = {block}). "
        "The comparisons are paired, so tiers may part where intervals overlap."
    )


def _fallback(board: Board) -> str:
    columns = [
        f"{metric} on {name} (p = {result.homogeneity:.2g})"
        for (name, metric), result in board.tiers.items()
        if result.method == "separate" and not math.isnan(result.homogeneity)
    ]
    if not columns:
        return ""
    return (
        f"The residual variances of the variants differ (p < {HOMOGENEITY_LEVEL:g}), so separate "
        f"paired t-tests took the place of the pooled model in: {', '.join(columns)}."
    )


def _set_aside(board: Board) -> str:
    if not board.set_aside:
        return ""
    return (
        f"Finished trials that stand aside: {board.set_aside}. Their initial student has not been "
        "trained with every training seed of its variant yet, so it cannot stand in a mean."
    )


def _common_seeds(board: Board) -> str:
    if not board.unequal_seeds:
        return ""
    if len(board.init_seeds) > 1 or any(row.n_init_seeds > 1 for row in board.rows.values()):
        return (
            "The variants have different training seeds or initial students; they are compared on "
            f"those that all have (seeds {_list(board.seeds)}; initial students "
            f"{_list(board.init_seeds)}), while means and intervals use all of a row's own."
        )
    if not board.seeds:
        return "The variants have no training seed in common, so they are not compared."
    return (
        f"The variants have different training seeds; they are compared on those that all have "
        f"({_list(board.seeds)}), while means and intervals use all of a row's own."
    )


def _list(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _sign_flip(board: Board) -> str:
    count = len(board.seeds)
    smallest = 2 / 2**count
    if count < 2 or smallest < LEVEL:
        return ""
    return (
        f"{count} seeds can never give p < {LEVEL:g} in an exact sign-flip test (2/2^{count} = "
        f"{smallest:.2g} at best): what the tiers separate rests on normal errors."
    )


def _diverged(board: Board) -> str:
    if not any(figures.n_diverged for figures in board.stability.values()):
        return ""
    return (
        "A diverged trial is scored from its last finite checkpoint and counts in the mean; `else` "
        "is the mean without it. Such rows rank after the others of their tier, have no part in "
        "the pooled variance and are compared by paired t-tests."
    )


def _clipped(board: Board) -> str:
    if all(math.isnan(figures.clipped_share) for figures in board.stability.values()):
        return ""
    return (
        "`clipped` is the share of steps whose gradient was clipped: the objectives' gradients "
        "differ in scale, so one learning rate for all is part of what is compared."
    )


def _cost(board: Board) -> str:
    costs = [cost for group in board.costs().values() for cost in group]
    if not any(cost.train_seconds for cost in costs):
        return ""
    live = any(cost.teacher_passes or cost.generated_tokens for cost in costs)
    passes = (
        " `teacher passes` are sequences that went through the teacher itself (0: its cached pass "
        "served, which all trials share), `generated` the tokens sampled while training."
        if live
        else " None sampled or ran the teacher: its pass is cached, and all trials share it."
    )
    return (
        "`train s` is the mean wall clock of a training alone, beside the trials that ran at the "
        f"same time on one machine; nothing is ranked by it.{passes}"
    )
