"""How sure a run's order is, on its page: ranks, profiles, and any two variants compared."""

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from kdbench.base.templates import render
from kdbench.report.evidence import Written
from kdbench.report.markdown import from_markdown
from kdbench.report.table import AVERAGE

FIGURES = (
    "difference",
    "ci_low",
    "ci_high",
    "p_holm",
    "effect_size",
    "improvement",
    "win_rate",
)
"""Of a pair of variants, in this order on the page."""


def evidence_data(written: Written) -> dict[str, Any]:
    """What the page's script draws.

    Returns:
        `pairs`: per set, [place of one variant, place of the other, *FIGURES], the places among
        `variants`; `profile`: per variant [level, share, low, high].
    """
    variants, profile = written.evidence.variants, written.profile
    place = {name: number for number, name in enumerate(variants)}
    pairs: dict[str, list[list[float | None]]] = {name: [] for name in written.evidence.columns}
    for row in written.comparisons.itertuples(index=False):
        figures = [_short(getattr(row, name)) for name in FIGURES]
        pairs[str(row.set)].append([place[str(row.variant)], place[str(row.other)], *figures])
    shares = profile.shares
    bands = zip(shares.estimate, shares.low, shares.high, strict=True)
    return {
        "variants": variants,
        "pairs": pairs,
        "label": profile.label,
        "profile": {
            name: [list(map(_short, point)) for point in zip(profile.levels, *band, strict=True)]
            for name, band in zip(variants, bands, strict=True)
        },
    }


def evidence_markup(written: Written) -> Markup:
    """What needs no script: how often each variant takes each rank, and evidence.md.

    A rank's cell has a shade for its share, in tenths.
    """
    evidence = written.evidence
    shares = evidence.ranks[AVERAGE].share
    ranks = [
        (name, [(share, int(np.ceil(10 * share))) for share in row])
        for name, row in zip(evidence.variants, shares, strict=True)
    ]
    table = render("report/ranks.html", evidence=evidence, ranks=ranks)
    return Markup(table) + from_markdown(written.text, deeper=1)


def _short(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.4g}")
