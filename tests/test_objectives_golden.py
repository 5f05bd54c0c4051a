"""Values and gradients against numbers that were computed independently: tests/golden/README.md."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.variants.variant import parse
from tests.objective_tools import value_and_gradient

SETS = json.loads((Path(__file__).parent / "golden" / "objectives.json").read_text())
OBJECTIVE_NAMES = {"akl": "adaptive-kl"}
PARAMETER_NAMES = {"a": "alpha", "b": "beta", "w": "teacher_weight", "div": "divergence"}
DIVERGENCES = {"kl": "kl", "ab": "alpha-beta[alpha=0.2,beta=0.7]"}
TOLERANCES = {  # (relative, absolute)
    "float64": dict.fromkeys(("mild", "sharp", "close", "equal"), (1e-7, 1e-9)),
    "float32": {
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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("golden", "case"), CASES)
def test_golden(golden: dict[str, Any], case: dict[str, Any], dtype: str) -> None:
    kind = getattr(torch, dtype)
    teacher = torch.tensor(golden["teacher_logits"], dtype=kind)
    student = torch.tensor(golden["student_logits"], dtype=kind)
    values, gradient = value_and_gradient(parse(_expression(case)), teacher, student)
    relative, absolute = TOLERANCES[dtype][golden["set"]]
    for found, wanted in ((values, case["per_token"]), (gradient, case["grad_student_logits"])):
        exact = torch.tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(found.double(), exact, rtol=relative, atol=absolute)
