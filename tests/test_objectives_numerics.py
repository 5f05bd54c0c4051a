"""Zero probabilities, extreme and equal logits: never NaN, finite wherever the mathematics is."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from kdbench.variants.objective import PRESETS
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, Variant, parse
from tests.objective_tools import logits, value_and_gradient

DTYPES = [torch.float64, torch.float32]
UNUSUAL = [
    "jeffreys[forward_weight=0]",
    "jeffreys[forward_weight=1]",
    "jsd[beta=0.001]",
    "skew-kl[teacher_weight=0]",
    "skew-reverse-kl[teacher_weight=1]",
    "skew-reverse-kl[detach_mixture=true]",
    *(
        f"alpha-beta[alpha={a},beta={b}]"
        for a, b in itertools.product((-1, -0.5, 0, 0.5, 2), repeat=2)
    ),
    *(
        f"amid[alpha={alpha},divergence={divergence},order={order},teacher_weight=0.3]"
        for alpha in (-50, -1, 0.9, 1, 1.1, 3, 50)
        for divergence in ("kl", "jsd", "alpha-beta[alpha=0,beta=0.7]")
        for order in ("pr", "qr", "rp", "rq")
    ),
]
VARIANTS = {
    str(variant): variant
    for variant in (*expand("all"), *map(parse, PRESETS), *map(parse, UNUSUAL))
    if variant.objective.kind == "divergence" and variant.sequences == DATASET
}
ALL = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def _assert_no_nan(values: Tensor, gradient: Tensor) -> None:
    assert not values.isnan().any(), values
    assert not gradient[values.isfinite()].isnan().any(), (values, gradient)


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_both_models_change_nothing(variant: Variant, dtype: torch.dtype) -> None:
    teacher, student = (item.to(dtype) for item in logits(20))
    wanted = value_and_gradient(variant, teacher[:, 3:], student[:, 3:])
    teacher[:, :3] = student[:, :3] = -math.inf
    values, gradient = value_and_gradient(variant, teacher, student)
    tolerance = 1e-12 if dtype == torch.float64 else 3e-5
    for found, exact in ((values, wanted[0]), (gradient[:, 3:], wanted[1])):
        assert (found - exact).abs().max() <= tolerance * exact.abs().max()
    assert (gradient[:, :3] == 0).all()


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero_of", ["teacher", "student"])
def test_a_value_is_infinite_exactly_where_declared(
    variant: Variant, dtype: torch.dtype, zero_of: str
) -> None:
    """Also beside ids that are zero for both, and where the other side's mass there is small."""
    declared = variant.infinite_where()
    assert declared is not None
    teacher, student = (item.to(dtype) for item in logits(21))
    teacher[:, 0] = student[:, 0] = -math.inf
    (teacher if zero_of == "teacher" else student)[:, 4:6] = -math.inf
    (student if zero_of == "teacher" else teacher)[:, 5] -= 10.0
    values, gradient = value_and_gradient(variant, teacher, student)
    if zero_of in declared:
        assert (values == math.inf).all()
    else:
        assert values.isfinite().all()
        assert gradient.isfinite().all()


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits_give_no_nan(variant: Variant, dtype: torch.dtype) -> None:
    teacher = torch.tensor([[150.0, -150, 0, 3, -20, 60], [-150, 150, -100, -110, -3, 0]])
    student = torch.tensor([[-150.0, 150, 0, -3, 20, -60], [-150, 150, -50, -220, -6, 1]])
    _assert_no_nan(*value_and_gradient(variant, teacher.to(dtype), student.to(dtype)))


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 150.0])
def test_equal_distributions_have_no_distance(
    variant: Variant, dtype: torch.dtype, scale: float
) -> None:
    teacher = logits(22, scale=1.0)[0].clamp(-1, 1).mul(scale).to(dtype)
    values, gradient = value_and_gradient(variant, teacher, teacher)
    torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=2e-6)
    assert gradient.isfinite().all()


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rest", [-math.inf, -150.0, -30.0])
def test_a_one_hot_teacher_gives_no_nan(variant: Variant, dtype: torch.dtype, rest: float) -> None:
    _, student = logits(23)
    teacher = torch.full_like(student, rest)
    teacher[range(4), range(4)] = 0.0
    _assert_no_nan(*value_and_gradient(variant, teacher.to(dtype), student.to(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_one_hot_teacher_has_closed_forms(dtype: torch.dtype) -> None:
    _, student = (item.to(dtype) for item in logits(24))
    teacher = torch.full_like(student, -math.inf)
    teacher[:, 2] = 0.0
    q = student.softmax(-1)[:, 2]
    wanted = {
        "forward-kl": -q.log(),
        "reverse-kl": torch.full_like(q, math.inf),
        "tvd": 1 - q,
        "skew-kl": -(0.1 + 0.9 * q).log(),
        "alpha-beta[alpha=1,beta=1]": 0.5
        * (teacher.softmax(-1) - student.softmax(-1)).square().sum(-1),
        "amid[alpha=1,divergence=kl]": torch.zeros_like(q),
    }
    for name, value in wanted.items():
        found, _ = value_and_gradient(parse(name), teacher, student)
        torch.testing.assert_close(found, value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("forward-kl", 300.0),
        ("reverse-kl", 300.0),
        ("jeffreys", 300.0),
        ("jsd", math.log(2.0)),
        ("tvd", 1.0),
        ("skew-kl", -math.log(0.1)),
        ("skew-reverse-kl", -math.log(0.1)),
        ("alpha-beta[alpha=0,beta=0]", 0.5 * 2 * 300.0**2),
        ("amid[alpha=1,divergence=kl,teacher_weight=0.1]", 240.0),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits_have_closed_forms(name: str, wanted: float, dtype: torch.dtype) -> None:
    """Two ids, each model certain of another one: log p = (0, -300), log q = (-300, 0).

    The geometric assistant of weight 0.1 is (-270, -30) before and (-240, 0) after normalising.
    """
    teacher = torch.tensor([[150.0, -150.0]], dtype=dtype)
    found, _ = value_and_gradient(parse(name), teacher, -teacher)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@ALL
def test_nan_logits_are_not_hidden(variant: Variant) -> None:
    """A diverged student must be seen to have diverged."""
    teacher, student = logits(25)
    student[1, 4] = math.nan
    values = variant(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))
    assert values.isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", ["skew-kl", "jsd", "amid", "amid[alpha=1]", "amid[alpha=0.5]"])
def test_float32_is_good_enough_at_a_real_vocabulary(name: str) -> None:
    """32,000 ids: the float32 value is near the float64 one and does not fall below zero."""
    teacher, student = logits(26, ids=32_000, scale=3.0)
    exact, slope = value_and_gradient(parse(name), teacher, student)
    found, gradient = value_and_gradient(parse(name), teacher.float(), student.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-6)
    close, _ = value_and_gradient(parse(name), teacher.float(), (teacher + 1e-2 * student).float())
    assert (close > 0).all()
