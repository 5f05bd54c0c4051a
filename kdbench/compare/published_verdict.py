"""Whether a published figure could be another training of what we ran."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdbench.stats.intervals import satterthwaite

REPRODUCED, NOT_REPRODUCED, CANNOT_TELL = "reproduced", "not reproduced", "cannot tell"
RESOLUTION = 1.0
"""ROUGE-L points that a comparison has to resolve: what leaving out no_repeat_ngram_size is worth,
the smallest known slip of the protocol."""
DECODINGS = 5
"""Decoding seeds behind a published figure and its standard deviation."""
LEVEL = 0.95

RULE = (
    "rule: could the published figure be ONE more training of ours? It is one checkpoint, and its "
    "sd covers five decodings of it, so the variance of trainings has to come from ours. The 95 % "
    "limits of the difference are t sqrt(s^2 (1 + 1/n) + sd^2 / 4 + e^2): s over our n training "
    "seeds (pooled over the rows where it is homogeneous), the published sd (ddof 0), and e, our "
    "error over prompts, where ours are other ones; degrees of freedom by Satterthwaite. not "
    "reproduced: beyond the limits. reproduced: within them, and they are at most 1 ROUGE-L point "
    "on each side, so that a slip of the protocol would have shown. cannot tell: within wider "
    "limits, or nothing says how far trainings spread"
)


@dataclass(frozen=True)
class Verdict:
    """What is said of a cell; `half` is half the width of the limits, NaN where there are none."""

    half: float
    word: str
    reason: str = ""


def judge(
    difference: float,
    n: int,
    error: tuple[float, float] | None,
    published_sd: float = math.nan,
    prompts: tuple[float, float] = (0.0, math.inf),
) -> Verdict:
    """Whether the published figure could be one more training of ours: prediction limits, `RULE`.

    Args:
        difference: ours minus published.
        n: our training seeds.
        error: squared standard error of our mean over training seeds and the degrees of freedom
            it was estimated with; None where there is one seed.
        published_sd: over decoding seeds, ddof 0; NaN where it is not published.
        prompts: squared error of our mean over prompts and its degrees of freedom, where the
            published figure is over other ones.
    """
    if error is None:
        return Verdict(math.nan, CANNOT_TELL, "one training seed")
    parts, freedom = [error[0] * (n + 1)], [error[1]]
    if not math.isnan(published_sd):
        parts.append(published_sd**2 / (DECODINGS - 1))
        freedom.append(DECODINGS - 1)
    if prompts[0] != 0:
        parts.append(prompts[0])
        freedom.append(prompts[1])
    if not np.isfinite(parts).all():
        return Verdict(
            math.nan, CANNOT_TELL, "other prompts or sets, whose noise a board does not hold"
        )
    quantile = stats.t.ppf((1 + LEVEL) / 2, satterthwaite(parts, freedom))
    half = float(quantile * math.sqrt(math.fsum(parts)))
    if abs(difference) > half:
        return Verdict(half, NOT_REPRODUCED)
    if half > RESOLUTION:
        return Verdict(half, CANNOT_TELL, f"limits wider than {RESOLUTION:g} point")
    return Verdict(half, REPRODUCED)
