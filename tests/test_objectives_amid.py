"""AMiD over the whole line of alpha: zeros of either model, and models that share no id."""

import math
from collections.abc import Callable
from decimal import Decimal

import pytest
import torch
from kdbench.objectives.amid import alpha_mixture
from torch import Tensor

from kdbench.variants.variant import parse
from tests import decimal_oracle as oracle
from tests.objective_tools import logits, value_and_gradient

ALPHAS = (-50.0, 0.999, 1.0, 1.001, 3.0, 50.0)
ORDERS = ("pr", "qr", "rp", "rq")
WEIGHT = 0.3
INNER: dict[str, Callable[[oracle.Distribution, oracle.Distribution], Decimal]] = {
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
    values = []
    for p_logits, q_logits in zip(teacher.tolist(), student.tolist(), strict=True):
        p, q = oracle.softmax(p_logits), oracle.softmax(q_logits)
        arguments = {"p": p, "q": q, "r": oracle.assistant(p, q, alpha, WEIGHT)}
        first = [x if x > Decimal(tiny) else Decimal(0) for x in arguments[order[0]]]
        values.append(float(INNER[divergence](first, arguments[order[1]])))
    return torch.tensor(values, dtype=torch.float64)


def _apart() -> tuple[Tensor, Tensor]:
    """In the first token no id that both can say; the second is ordinary."""
    teacher, student = logits(71, tokens=2)
    teacher[0, :4] = student[0, 4:] = -math.inf
    return teacher, student


@pytest.mark.parametrize("zero_of", ["neither", "teacher", "student", "each"])
@pytest.mark.parametrize("divergence", INNER)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_amid_is_its_formula_beside_zeros(
    alpha: float, order: str, divergence: str, zero_of: str
) -> None:
    teacher, student = logits(70, tokens=2, ids=6)
    if zero_of in ("teacher", "each"):
        teacher[:, 1] = -math.inf
    if zero_of in ("student", "each"):
        student[:, 2:4] = -math.inf
    variant = parse(_name(alpha, divergence, order))
    found = []
    for dtype, tiny, relative, absolute in (
        (torch.float64, 5e-324, 1e-9, 1e-11),
        (torch.float32, 1e-45, 2e-4, 4e-6),
    ):
        wanted = _exact(alpha, divergence, order, teacher, student, tiny)
        values, gradient = value_and_gradient(variant, teacher.to(dtype), student.to(dtype))
        torch.testing.assert_close(values.double(), wanted, rtol=relative, atol=absolute)
        assert gradient[values.isfinite()].isfinite().all()
        found.append((values, gradient.double()))
    finite = found[0][0].isfinite() & found[1][0].isfinite()
    torch.testing.assert_close(found[1][1][finite], found[0][1][finite], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("divergence", [*INNER, "alphanet", "bdkd", "logit-mse", "concrete-score"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alpha", [1.0, 1.001, 3.0, 50.0])
def test_models_that_share_no_id_have_no_assistant_from_alpha_one_on(
    alpha: float, order: str, divergence: str, dtype: torch.dtype
) -> None:
    teacher, student = (item.to(dtype) for item in _apart())
    variant = parse(_name(alpha, divergence, order))
    values, gradient = value_and_gradient(variant, teacher, student)
    assert values[0] == math.inf
    alone = value_and_gradient(variant, teacher[1:], student[1:])
    torch.testing.assert_close((values[1:], gradient[1:]), alone)


@pytest.mark.parametrize("divergence", BOUNDED)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("alpha", [-50.0, -1.0, 0.5, 0.999])
def test_models_that_share_no_id_have_an_assistant_below_alpha_one(
    alpha: float, order: str, divergence: str
) -> None:
    teacher, student = _apart()
    wanted = _exact(alpha, divergence, order, teacher, student)
    values, gradient = value_and_gradient(parse(_name(alpha, divergence, order)), teacher, student)
    torch.testing.assert_close(values, wanted, rtol=1e-9, atol=1e-11)
    assert gradient.isfinite().all()


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
