"""Extreme logits and certain models, beyond what the conformance suite tries on every objective."""

import math

import pytest
import torch

from kdbench.variants.objective import PRESETS
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, Variant, parse
from tests.objective_tools import assert_same, logits, value_and_gradient

DTYPES = [torch.float64, torch.float32]
CORNERS = [
    "jeffreys[forward_weight=0]",
    "jeffreys[forward_weight=1]",
    "jsd[beta=0.001]",
    "skew-kl[teacher_weight=0]",
    "skew-reverse-kl[teacher_weight=1]",
    "alpha-beta[alpha=-1,beta=-1]",
    "alpha-beta[alpha=-0.5,beta=2]",
    "alpha-beta[alpha=0,beta=0]",
    "alpha-beta[alpha=0.5,beta=-0.5]",
    "alpha-beta[alpha=2,beta=0]",
    "amid[alpha=-50,divergence=kl,order=rq]",
    "amid[alpha=0.9,divergence=jsd,order=qr]",
    "amid[alpha=1,divergence=kl,order=rp]",
    "amid[alpha=1.1,divergence=alpha-beta[alpha=0,beta=0.7]]",
    "amid[alpha=50,divergence=kl,order=qr]",
]
VARIANTS = {
    str(variant): variant
    for variant in (*expand("all"), *map(parse, PRESETS), *map(parse, CORNERS))
    if variant.objective.kind == "divergence" and variant.sequences == DATASET
}
ALL = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


@ALL
@pytest.mark.parametrize("zero_of", ["teacher", "student"])
def test_a_value_is_infinite_exactly_where_declared(variant: Variant, zero_of: str) -> None:
    """Also beside ids that are zero for both, and where the other side's mass there is small."""
    declared = variant.infinite_where()
    assert declared is not None
    for dtype in DTYPES:
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
def test_certain_models_give_no_nan(variant: Variant, dtype: torch.dtype) -> None:
    """Each certain of another id, the teacher alone nearly one-hot, and both of the same id."""
    student = logits(23)[1]
    one_hot = torch.full_like(student, -30.0)
    one_hot[range(4), range(4)] = 0.0
    apart = torch.tensor([[150.0, -150, 0, 3, -20, 60], [-150, 150, -100, -110, -3, 0]])
    other = torch.tensor([[-150.0, 150, 0, -3, 20, -60], [-150, 150, -50, -220, -6, 1]])
    sharp = 150 * logits(22, scale=1.0)[0].clamp(-1, 1)
    for p, q in ((apart, other), (one_hot, student), (sharp, sharp)):
        values, gradient = value_and_gradient(variant, p.to(dtype), q.to(dtype))
        assert not values.isnan().any(), values
        assert gradient[values.isfinite()].isfinite().all(), (values, gradient)
    assert_same(values, torch.zeros_like(values), rtol=0, atol=2e-6)


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
