"""The rule behind a verdict: prediction limits of one more training."""

import numpy as np
import pytest
from scipy import stats

from kdbench.compare.cells import judge


def test_limits_are_those_of_one_more_training() -> None:
    """Closed form: a two-sample t of one against n."""
    values = np.array([20.0, 20.4, 19.9, 20.2])
    found = judge(0.3, 4, (values.var(ddof=1) / 4, 3))
    expected = stats.t.ppf(0.975, 3) * values.std(ddof=1) * np.sqrt(1 + 1 / 4)
    assert found.half == pytest.approx(expected)


def test_an_equal_training_is_beyond_the_limits_in_one_of_twenty_cells() -> None:
    generator = np.random.default_rng(0)
    training, decoding, n, cells = 0.3, 0.4, 3, 4000
    ours = generator.normal(0, training, (cells, n))
    theirs = generator.normal(0, training, (cells, 1)) + generator.normal(0, decoding, (cells, 5))
    beyond = [
        judge(a.mean() - b.mean(), n, (a.var(ddof=1) / n, n - 1), b.std()).verdict
        == "not reproduced"
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert 0.03 < np.mean(beyond) < 0.065


@pytest.mark.parametrize(
    ("difference", "n", "error", "word"),
    [
        (0.1, 5, (0.01, 4), "reproduced"),
        (5.0, 5, (0.01, 4), "not reproduced"),
        (0.1, 3, (1.0, 2), "cannot tell"),
        (0.0, 1, None, "cannot tell"),
        (20.0, 1, None, "cannot tell"),
    ],
)
def test_verdicts(difference: float, n: int, error: tuple[float, float] | None, word: str) -> None:
    assert judge(difference, n, error).verdict == word


def test_a_published_deviation_widens_the_limits() -> None:
    assert judge(0, 5, (0.01, 4), 0.5).half > judge(0, 5, (0.01, 4)).half


def test_other_prompts_whose_noise_is_unknown_cannot_be_told() -> None:
    found = judge(9.0, 5, (0.01, 4), prompts=(np.nan, np.nan))
    assert (found.verdict, found.reason[:13]) == ("cannot tell", "other prompts")
