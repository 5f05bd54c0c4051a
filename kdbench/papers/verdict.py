"""Could a published figure be another training of what we ran?"""

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
    "rule: a published figure is one checkpoint, decoded with five seeds; its sd covers those "
    "decodings and nothing else, so its training variance has to come from ours. The difference "
    "is held against the 95 % limits within which the figure of ONE more training would lie: our "
    "spread over training seeds s (pooled over the rows where it is homogeneous), as "
    "s^2 (1 + 1/n), plus the published decoding error sd^2 / 4 (ddof 0), plus our error over "
    "prompts where ours are other ones; Student-t, degrees of freedom by Satterthwaite. not "
    "reproduced: beyond these limits. reproduced: within them, and they are at most 1 ROUGE-L "
    "point on each side, so that a slip of the protocol would have shown. cannot tell: within "
    "wider limits, or one training seed, whose variance is not known"
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
    """Could the published figure be one more training of ours? (Prediction limits, `RULE`.)

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
        return Verdict(math.nan, CANNOT_TELL, "other prompts, and their noise is not known")
    quantile = stats.t.ppf((1 + LEVEL) / 2, satterthwaite(parts, freedom))
    half = float(quantile * math.sqrt(math.fsum(parts)))
    if abs(difference) > half:
        return Verdict(half, NOT_REPRODUCED)
    if half > RESOLUTION:
        return Verdict(half, CANNOT_TELL, f"limits wider than {RESOLUTION:g} point")
    return Verdict(half, REPRODUCED)
