"""What every registered divergence has in common, on logits that hypothesis draws."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdbench.variants.objective import OBJECTIVES, PRESETS
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, Variant, parse
from tests.objective_tools import logits, value_and_gradient

FEW = settings(max_examples=15, deadline=None)
VARIANTS = {
    variant.name: variant
    for variant in (*expand("all"), *map(parse, OBJECTIVES), *map(parse, PRESETS))
    if variant.objective.kind == "divergence" and variant.sequences == DATASET
}
ALL = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())

Logits = tuple[Tensor, Tensor]
pairs: st.SearchStrategy[Logits] = st.builds(
    logits, st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 12), st.floats(0.1, 5.0)
)


def _assert_same(found: Logits, wanted: Logits) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * float(other.abs().max()))


@ALL
@FEW
@given(pairs)
def test_a_divergence_is_positive_where_the_distributions_differ(
    variant: Variant, pair: Logits
) -> None:
    teacher, student = pair
    values, _ = value_and_gradient(variant, teacher, student)
    assert (values >= -1e-12).all()
    apart = (teacher.softmax(-1) - student.softmax(-1)).abs().amax(-1) > 1e-3
    assert (values[apart] > 0).all()


@ALL
@FEW
@given(pairs)
def test_a_divergence_is_zero_where_they_agree(variant: Variant, pair: Logits) -> None:
    """Also where the equal distributions come from logits a shift apart."""
    teacher, _ = pair
    for student in (teacher, teacher + 2.0):
        values, gradient = value_and_gradient(variant, teacher, student)
        assert (values.abs() <= 1e-12).all()
        assert gradient.isfinite().all()


@ALL
@FEW
@given(pairs)
def test_the_gradient_sums_to_zero_over_the_vocabulary(variant: Variant, pair: Logits) -> None:
    values, gradient = value_and_gradient(variant, *pair)
    size = gradient.abs().sum(-1) + values.abs()
    assert (gradient.sum(-1).abs() <= 1e-11 * size).all()


@ALL
@FEW
@given(pairs, st.floats(-100, 100), st.floats(-100, 100))
def test_logits_are_known_up_to_a_shift(
    variant: Variant, pair: Logits, of_teacher: float, of_student: float
) -> None:
    teacher, student = pair
    shifted = value_and_gradient(variant, teacher + of_teacher, student + of_student)
    _assert_same(shifted, value_and_gradient(variant, teacher, student))


@ALL
@FEW
@given(pairs, st.randoms(use_true_random=False))
def test_ids_are_names(variant: Variant, pair: Logits, random: Random) -> None:
    teacher, student = pair
    order = list(range(teacher.shape[1]))
    random.shuffle(order)
    values, gradient = value_and_gradient(variant, teacher, student)
    moved = value_and_gradient(variant, teacher[:, order], student[:, order])
    _assert_same(moved, (values, gradient[:, order]))


@ALL
@FEW
@given(pairs, st.integers(1, 20))
def test_padding_of_the_vocabulary_changes_nothing(
    variant: Variant, pair: Logits, ids: int
) -> None:
    nothing = torch.full((len(pair[0]), ids), -math.inf, dtype=torch.float64)
    padded = [torch.cat([item, nothing], -1) for item in pair]
    values, gradient = value_and_gradient(variant, *pair)
    wanted = values, torch.cat([gradient, torch.zeros_like(nothing)], -1)
    _assert_same(value_and_gradient(variant, *padded), wanted)


@ALL
@FEW
@given(pairs, st.integers(0, 5))
def test_a_batch_may_be_split_anywhere(variant: Variant, pair: Logits, at: int) -> None:
    """Also into a part without tokens."""
    parts = [
        value_and_gradient(variant, pair[0][rows], pair[1][rows])
        for rows in (slice(0, at), slice(at, None))
    ]
    joined = torch.cat([parts[0][0], parts[1][0]]), torch.cat([parts[0][1], parts[1][1]])
    _assert_same(joined, value_and_gradient(variant, *pair))
