"""Values and gradients against numbers found elsewhere: tests/golden/README.md, closed forms."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.variants.objective import PRESETS
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, parse
from tests.objective_tools import assert_same, logits, value_and_gradient

SETS = json.loads((Path(__file__).parent / "golden" / "objectives.json").read_text())
OBJECTIVE_NAMES = {"akl": "adaptive-kl"}
PARAMETER_NAMES = {"a": "alpha", "b": "beta", "w": "teacher_weight", "div": "divergence"}
DIVERGENCES = {"kl": "kl", "ab": "alpha-beta[alpha=0.2,beta=0.7]"}
TOLERANCES = {  # (relative, absolute)
    torch.float64: dict.fromkeys(("mild", "sharp", "close", "equal"), (1e-7, 1e-9)),
    torch.float32: {
        "mild": (2e-4, 4e-6),
        "sharp": (2e-4, 4e-6),
        "close": (0.0, 2e-5),
        "equal": (0.0, 2e-5),
    },
}
DTYPES = [torch.float64, torch.float32]


def _expression(case: dict[str, Any]) -> str:
    name = OBJECTIVE_NAMES.get(case["objective"], case["objective"])
    names = PARAMETER_NAMES | ({"w": "forward_weight"} if name == "jeffreys" else {})
    params = ",".join(
        f"{names.get(key, key)}={DIVERGENCES[value] if key == 'div' else value}"
        for key, value in case["params"].items()
    )
    return f"{name}[{params}]" if params else name


CASES = [
    pytest.param(golden, case, id=f"{golden['set']}-{_expression(case)}")
    for golden in SETS
    for case in golden["cases"]
]


def test_the_four_sets_and_sixty_pairs_are_there() -> None:
    assert [golden["set"] for golden in SETS] == ["mild", "sharp", "close", "equal"]
    for golden in SETS:
        assert len({_expression(case) for case in golden["cases"]}) == 60


@pytest.mark.parametrize(("golden", "case"), CASES)
def test_golden(golden: dict[str, Any], case: dict[str, Any]) -> None:
    exact = [
        torch.tensor(case[key], dtype=torch.float64) for key in ("per_token", "grad_student_logits")
    ]
    for dtype, tolerances in TOLERANCES.items():
        teacher, student = (
            torch.tensor(golden[key], dtype=dtype) for key in ("teacher_logits", "student_logits")
        )
        relative, absolute = tolerances[golden["set"]]
        found = value_and_gradient(parse(_expression(case)), teacher, student)
        for value, wanted in zip(found, exact, strict=True):
            assert_same(value.double(), wanted, str(dtype), rtol=relative, atol=absolute)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_one_hot_teacher_has_closed_forms(dtype: torch.dtype) -> None:
    _, student = (item.to(dtype) for item in logits(24))
    teacher = torch.full_like(student, -math.inf)
    teacher[:, 2] = 0.0
    q, distance = student.softmax(-1)[:, 2], teacher.softmax(-1) - student.softmax(-1)
    wanted = {
        "forward-kl": -q.log(),
        "reverse-kl": torch.full_like(q, math.inf),
        "tvd": 1 - q,
        "skew-kl": -(0.1 + 0.9 * q).log(),
        "alpha-beta[alpha=1,beta=1]": 0.5 * distance.square().sum(-1),
        "amid[alpha=1,divergence=kl]": torch.zeros_like(q),
    }
    for name, value in wanted.items():
        assert_same(value_and_gradient(parse(name), teacher, student)[0], value, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits_have_closed_forms(dtype: torch.dtype) -> None:
    """Two ids, each model certain of another one: log p = (0, -300), log q = (-300, 0).

    The geometric assistant of weight 0.1 is (-270, -30) before and (-240, 0) after normalising.
    """
    wanted = {
        **dict.fromkeys(("forward-kl", "reverse-kl", "jeffreys"), 300.0),
        "jsd": math.log(2.0),
        "tvd": 1.0,
        **dict.fromkeys(("skew-kl", "skew-reverse-kl"), -math.log(0.1)),
        "alpha-beta[alpha=0,beta=0]": 0.5 * 2 * 300.0**2,
        "amid[alpha=1,divergence=kl,teacher_weight=0.1]": 240.0,
    }
    teacher = torch.tensor([[150.0, -150.0]], dtype=dtype)
    found = {name: value_and_gradient(parse(name), teacher, -teacher)[0] for name in wanted}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(wanted, rel=1e-5)


def test_nan_logits_are_not_hidden() -> None:
    """A diverged student must be seen to have diverged, by every way through the formulas."""
    exponents = [(-1, -1), (-0.5, 2), (0, 0), (0.5, -0.5), (2, 0), (2, 0.5)]
    corners = [
        *(f"alpha-beta[alpha={alpha},beta={beta}]" for alpha, beta in exponents),
        *(f"amid[alpha={alpha},divergence=kl,order=qr]" for alpha in (-50, 0.9, 1, 1.1, 50)),
        *("jeffreys[forward_weight=0]", "jeffreys[forward_weight=1]", "skew-kl[teacher_weight=0]"),
        "skew-reverse-kl[teacher_weight=1]",
    ]
    teacher, student = logits(25)
    student[1, 4] = math.nan
    for variant in (*expand("all"), *map(parse, PRESETS), *map(parse, corners)):
        if variant.objective.kind == "divergence" and variant.sequences == DATASET:
            values = variant(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))
            assert values.isnan().tolist() == [False, True, False, False], variant


@pytest.mark.parametrize("name", ["skew-kl", "jsd", "amid", "amid[alpha=1]", "amid[alpha=0.5]"])
def test_float32_stays_above_zero_at_a_real_vocabulary(name: str) -> None:
    """32,000 ids, where the models nearly agree."""
    teacher, student = logits(26, ids=32_000, scale=3.0)
    close, _ = value_and_gradient(parse(name), teacher.float(), (teacher + 1e-2 * student).float())
    assert (close > 0).all()
