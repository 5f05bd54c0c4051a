"""Values and gradients against numbers that were computed independently: tests/golden/README.md."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.variants.variant import parse
from tests.objective_tools import assert_same, value_and_gradient

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


def _name(case: dict[str, Any]) -> str:
    return OBJECTIVE_NAMES.get(case["objective"], case["objective"])


def _expression(case: dict[str, Any]) -> str:
    names = PARAMETER_NAMES | ({"w": "forward_weight"} if _name(case) == "jeffreys" else {})
    params = ",".join(
        f"{names.get(key, key)}={DIVERGENCES[value] if key == 'div' else value}"
        for key, value in case["params"].items()
    )
    return f"{_name(case)}[{params}]" if params else _name(case)


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
