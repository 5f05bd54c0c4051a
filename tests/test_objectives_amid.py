"""AMiD over the whole line of alpha: zeros of either model, and models that share no id."""

import itertools
import math
from decimal import Decimal

import pytest
import torch
from kdbench.objectives.amid import alpha_mixture
from torch import Tensor

from kdbench.variants.variant import parse
from tests import decimal_oracle as oracle
from tests.objective_tools import Formula, assert_same, exact, logits, value_and_gradient

ALPHAS = (-50.0, 0.999, 1.0, 1.001, 3.0, 50.0)
ORDERS = ("pr", "qr", "rp", "rq")
WEIGHT = 0.3
INNER: dict[str, Formula] = {
    "kl": oracle.kl,
    "tvd": oracle.tvd,
    "alpha-beta": lambda p, q: oracle.alpha_beta(p, q, 0.2, 0.7),
    "hellinger": oracle.hellinger,
}
BOUNDED = ("tvd", "hellinger", "alpha-beta")


def _name(alpha: float, divergence: str, order: str) -> str:
    return f"amid[alpha={alpha!r},divergence={divergence},order={order},teacher_weight={WEIGHT}]"


def _exact(
    alpha: float, divergence: str, order: str, teacher: Tensor, student: Tensor, tiny: float = 0.0
) -> Tensor:
    """In 40 digits, except that below `tiny` the first argument's probabilities count as 0."""

    def formula(p: oracle.Distribution, q: oracle.Distribution) -> Decimal:
        arguments = {"p": p, "q": q, "r": oracle.assistant(p, q, alpha, WEIGHT)}
        first = [x if x > Decimal(tiny) else Decimal(0) for x in arguments[order[0]]]
        return INNER[divergence](first, arguments[order[1]])

    return exact(formula, teacher, student)


def _apart() -> tuple[Tensor, Tensor]:
    """In the first token no id that both can say; the second is ordinary."""
    teacher, student = logits(71, tokens=2)
    teacher[0, :4] = student[0, 4:] = -math.inf
    return teacher, student


@pytest.mark.parametrize("zero_of", ["neither", "teacher", "student", "each"])
@pytest.mark.parametrize(
    ("divergence", "alpha"),
    [*(("kl", alpha) for alpha in ALPHAS), *itertools.product(BOUNDED, (-50.0, 1.0, 3.0))],
)
def test_amid_is_its_formula_beside_zeros(divergence: str, alpha: float, zero_of: str) -> None:
    teacher, student = logits(70, tokens=2, ids=6)
    if zero_of in ("teacher", "each"):
        teacher[:, 1] = -math.inf
    if zero_of in ("student", "each"):
        student[:, 2:4] = -math.inf
    for order in ORDERS:
        name, found = _name(alpha, divergence, order), []
        for dtype, tiny, relative, absolute in (
            (torch.float64, 5e-324, 1e-9, 1e-11),
            (torch.float32, 1e-45, 2e-4, 4e-6),
        ):
            wanted = _exact(alpha, divergence, order, teacher, student, tiny)
            values, gradient = value_and_gradient(parse(name), teacher.to(dtype), student.to(dtype))
            assert_same(values.double(), wanted, name, rtol=relative, atol=absolute)
            assert gradient[values.isfinite()].isfinite().all(), name
            found.append((values, gradient.double()))
        finite = found[0][0].isfinite() & found[1][0].isfinite()
        assert_same(found[1][1][finite], found[0][1][finite], name, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 1.001, 50.0])
@pytest.mark.parametrize("divergence", [*INNER, "alphanet", "bdkd", "logit-mse", "concrete-score"])
def test_models_that_share_no_id_have_no_assistant_from_alpha_one_on(
    divergence: str, alpha: float
) -> None:
    for order, dtype in itertools.product(ORDERS, (torch.float64, torch.float32)):
        teacher, student = (item.to(dtype) for item in _apart())
        name = _name(alpha, divergence, order)
        values, gradient = value_and_gradient(parse(name), teacher, student)
        assert values[0] == math.inf, name
        alone = value_and_gradient(parse(name), teacher[1:], student[1:])
        assert_same((values[1:], gradient[1:]), alone, name)


@pytest.mark.parametrize("divergence", BOUNDED)
@pytest.mark.parametrize("alpha", [-50.0, -1.0, 0.5, 0.999])
def test_models_that_share_no_id_have_an_assistant_below_alpha_one(
    alpha: float, divergence: str
) -> None:
    teacher, student = _apart()
    for order in ORDERS:
        name = _name(alpha, divergence, order)
        wanted = _exact(alpha, divergence, order, teacher, student)
        values, gradient = value_and_gradient(parse(name), teacher, student)
        assert_same(values, wanted, name, rtol=1e-9, atol=1e-11)
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_assistant_that_is_one_of_the_models_is_always_there(weight: float) -> None:
    teacher, student = (torch.log_softmax(item, -1) for item in _apart())
    found = alpha_mixture(teacher, student, alpha=3.0, teacher_weight=weight)
    torch.testing.assert_close(found, teacher if weight else student)


def test_the_mixture_of_models_that_share_no_id_is_nowhere() -> None:
    teacher, student = (torch.log_softmax(item, -1) for item in _apart())
    found = alpha_mixture(teacher, student, alpha=1.0, teacher_weight=WEIGHT)
    assert (found[0] == -math.inf).all()
    assert found[1].exp().sum() == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_a_student_that_diverged_is_still_seen(alpha: float) -> None:
    teacher, student = _apart()
    student[1, 0] = math.nan
    values = parse(_name(alpha, "tvd", "pr"))(
        torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    )
    assert values[0] == math.inf
    assert values[1].isnan()
