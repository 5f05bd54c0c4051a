"""Where the variance of a run's figures comes from, and what more of each would gain."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdbench.report.evidence_data import Evidence
from kdbench.stats.intervals import Floats
from kdbench.stats.variance import (
    Component,
    expected_half_width,
    of_average,
    variance_of_mean,
)

VARIANT, SEED, INIT = "variant", "training seed", "initial student"
DECODING, SAMPLE = "decoding seed", "sample"
FACTORS = (VARIANT, SEED, INIT, DECODING, SAMPLE)
"""The axes of `Evidence.scores`; a factor more is an axis more, here and there."""
TIMES = " x "
"""Between the factors of a component's name."""


@dataclass(frozen=True)
class Replication:
    """How many of each would be run; `samples` is a multiple of the prompts there are."""

    seeds: int
    init_seeds: int
    decodings: int
    samples: float
    label: str


@dataclass(frozen=True)
class InitShare:
    """The shares of a variance, in [0, 1], of the components with the initial student."""

    alone: float
    with_seed: float
    with_sample: float


def variance_frame(evidence: Evidence) -> pd.DataFrame:
    """One row per (column, scope, component).

    Scope `row` is the variance of one variant's figure, pooled over the variants without a diverged
    trial; `difference` that of the difference of two of them, paired by everything; the name of a
    variant is that variant's alone.
    `variance` is of one level, so of the scores of one sample where the component has samples
    (empty for `average`, whose sets differ); `contribution` is what is left of it in the mean.
    """
    rows = []
    for column, sets in evidence.columns.items():
        strata = [evidence.scores[name] for name in sets]
        calm = _calm(evidence, column)
        scopes = {"row": _within(calm), "difference": _between(calm)}
        for place, name in enumerate(evidence.variants):
            scopes[name] = of_average([table[place] for table in strata], FACTORS[1:])
        for scope, found in scopes.items():
            contributions = _contributions(found, evidence)
            total = sum(max(own, 0.0) for own in contributions.values())
            for key, contribution in contributions.items():
                rows.append(
                    {
                        "set": column,
                        "metric": evidence.metric,
                        "scope": scope,
                        "component": TIMES.join(key),
                        "variance": _one_level(found, key, strata),
                        "contribution": contribution,
                        "share": max(contribution, 0.0) / total if total else np.nan,
                    }
                )
    return pd.DataFrame(rows)


def init_share(shares: Mapping[str, float]) -> InitShare:
    """What is known of the initial student; the decoding seed's share counts with the others'."""
    known = [(set(name.split(TIMES)) - {DECODING}, share) for name, share in shares.items()]
    return InitShare(
        sum(share for factors, share in known if factors == {INIT}),
        sum(share for factors, share in known if factors == {INIT, SEED}),
        sum(share for factors, share in known if factors >= {INIT, SAMPLE}),
    )


def gains_frame(evidence: Evidence, column: str) -> pd.DataFrame:
    """Expected half-widths of 95 % intervals if more, or fewer, of each were run.

    `row` is the interval over training seeds of one variant's figure, `difference` that of two
    variants' difference in the randomised-block model, `new_prompts` the standard error of a row's
    figure if the prompts (and the initial students, where there are several) were drawn anew as
    well. One training seed says nothing of the first two.
    """
    calm = _calm(evidence, column)
    within, between = _within(calm), _between(calm)
    k, known = len(calm[0]), evidence.n_seeds > 1
    rows = []
    for plan in _plans(evidence):
        seeds = plan.seeds
        rest = {INIT: plan.init_seeds, DECODING: plan.decodings, SAMPLE: plan.samples}
        by_seed, paired = (
            variance_of_mean({key: value for key, value in found.items() if SEED in key}, rest)
            for found in (within, between)
        )
        rows.append(
            {
                "plan": plan.label,
                "row": expected_half_width(by_seed, seeds, known * (seeds - 1)),
                "difference": expected_half_width(paired, seeds, known * (k - 1) * (seeds - 1)),
                "new_prompts": np.sqrt(variance_of_mean(within, {**rest, SEED: seeds})),
            }
        )
    return pd.DataFrame(rows)


def _calm(evidence: Evidence, column: str) -> list[Floats]:
    """The scores of the variants that never diverged: the others' errors are of another kind."""
    stability = evidence.board.stability
    calm = [stability[name].n_diverged == 0 for name in evidence.variants]
    return [evidence.scores[name][calm] for name in evidence.columns[column]]


def _within(strata: list[Floats]) -> dict[Component, float]:
    """Components of one variant's figure: what all variants share, and what is its own."""
    found = of_average(strata, FACTORS) if len(strata[0]) else {}
    shared = {key: value for key, value in found.items() if VARIANT not in key}
    return {key: value + found.get((VARIANT, *key), 0.0) for key, value in shared.items()}


def _between(strata: list[Floats]) -> dict[Component, float]:
    """Components of the difference of two variants' figures: twice what is a variant's own."""
    found = of_average(strata, FACTORS) if len(strata[0]) else {}
    return {key[1:]: 2 * value for key, value in found.items() if VARIANT in key and len(key) > 1}


def _contributions(found: dict[Component, float], evidence: Evidence) -> dict[Component, float]:
    levels = {
        SEED: evidence.n_seeds,
        INIT: evidence.n_init_seeds,
        DECODING: evidence.n_decodings,
    }
    return {
        key: value / float(np.prod([levels.get(factor, 1) for factor in key]))
        for key, value in found.items()
    }


def _one_level(found: dict[Component, float], key: Component, strata: list[Floats]) -> float:
    if SAMPLE not in key:
        return found[key]
    return found[key] * strata[0].shape[-1] if len(strata) == 1 else np.nan


def _plans(evidence: Evidence) -> list[Replication]:
    seeds, students = evidence.n_seeds, evidence.n_init_seeds
    now = Replication(seeds, students, evidence.n_decodings, 1.0, "as run")
    plans = [now]
    if seeds > 1:
        plans += [
            replace(now, seeds=n, label=f"{n} training seeds") for n in (3, 5, 10) if n > seeds
        ]
    if students > 1:
        plans.append(replace(now, init_seeds=4 * students, label=f"{4 * students} {INIT}s"))
    plans.append(replace(now, samples=4.0, label="four times the prompts"))
    if (decodings := evidence.n_decodings) > 1:
        plans.append(replace(now, decodings=4 * decodings, label=f"{4 * decodings} {DECODING}s"))
    return plans
