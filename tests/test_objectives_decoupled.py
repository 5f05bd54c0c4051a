"""KL split at the label: dkd and drkl."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.variants.variant import parse
from tests import decimal_oracle as oracle
from tests.objective_tools import SOME, logits, seeds, value_and_gradient

LABELS = torch.tensor([0, 3, 8, 3])


def _value(name: str, teacher: Tensor, student: Tensor) -> Tensor:
    return value_and_gradient(parse(name), teacher, student, LABELS)[0]


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_both_are_their_formulas(scale: float) -> None:
    teacher, student = logits(50, scale=scale)
    wanted: dict[str, list[float]] = {"dkd[target_weight=2,nontarget_weight=3]": [], "drkl": []}
    for p_logits, q_logits, label in zip(teacher, student, LABELS, strict=True):
        p_split, p_rest = oracle.split(oracle.softmax(p_logits.tolist()), int(label))
        q_split, q_rest = oracle.split(oracle.softmax(q_logits.tolist()), int(label))
        forward = 2 * oracle.kl(p_split, q_split) + 3 * oracle.kl(p_rest, q_rest)
        reverse = oracle.kl(q_split, p_split) + oracle.kl(q_rest, p_rest) / 2
        for values, value in zip(wanted.values(), (forward, reverse), strict=True):
            values.append(float(value))
    for name, values in wanted.items():
        exact = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(_value(name, teacher, student), exact, rtol=1e-9, atol=1e-13)
        in_float32 = _value(name, teacher.float(), student.float())
        torch.testing.assert_close(in_float32.double(), exact, rtol=2e-4, atol=4e-6)


@SOME
@given(seeds)
def test_the_kls_are_their_two_parts(seed: int) -> None:
    """KL(p || q) = split + (1 - p_label) rest; the reverse KL likewise with q_label."""
    teacher, student = logits(seed)
    split = _value("dkd[nontarget_weight=0]", teacher, student)
    rest = _value("dkd[target_weight=0,nontarget_weight=1]", teacher, student)
    certainty = teacher.softmax(-1).gather(-1, LABELS.unsqueeze(-1)).squeeze(-1)
    forward, _ = value_and_gradient(parse("forward-kl"), teacher, student)
    torch.testing.assert_close(split + (1 - certainty) * rest, forward)

    one, two = (_value(f"drkl[gamma={gamma}]", teacher, student) for gamma in (1, 2))
    certainty = student.softmax(-1).gather(-1, LABELS.unsqueeze(-1)).squeeze(-1)
    reverse, _ = value_and_gradient(parse("reverse-kl"), teacher, student)
    torch.testing.assert_close(one - certainty * (two - one), reverse)


def test_the_rest_does_not_see_the_label() -> None:
    teacher, student = logits(51)
    rest = "dkd[target_weight=0]"
    values, gradient = value_and_gradient(parse(rest), teacher, student, LABELS)
    student[range(4), LABELS] += 3.0
    moved, other = value_and_gradient(parse(rest), teacher, student, LABELS)
    torch.testing.assert_close(moved, values)
    torch.testing.assert_close(other, gradient)
    torch.testing.assert_close(gradient[range(4), LABELS], torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("certain", ["teacher", "student", "both"])
def test_a_model_certain_of_the_label_has_no_rest(certain: str, dtype: torch.dtype) -> None:
    teacher, student = (item.to(dtype) for item in logits(52))
    one_hot = torch.full_like(student, -math.inf)
    one_hot[range(4), LABELS] = 0.0
    p, q = teacher.softmax(-1)[range(4), LABELS], student.softmax(-1)[range(4), LABELS]
    teacher = one_hot if certain != "student" else teacher
    student = one_hot if certain != "teacher" else student
    dkd, slope = value_and_gradient(parse("dkd"), teacher, student, LABELS)
    drkl, other_slope = value_and_gradient(parse("drkl"), teacher, student, LABELS)
    infinite = torch.full_like(p, math.inf)
    wanted = {
        "teacher": (-q.log(), infinite),
        "student": (infinite, -p.log()),
        "both": (torch.zeros_like(p), torch.zeros_like(p)),
    }[certain]
    torch.testing.assert_close((dkd, drkl), wanted)
    assert slope[dkd.isfinite()].isfinite().all()
    assert other_slope[drkl.isfinite()].isfinite().all()


def test_dkd_refuses_to_be_nothing() -> None:
    with pytest.raises(UserError, match="always 0"):
        parse("dkd[target_weight=0,nontarget_weight=0]")
    with pytest.raises(UserError, match="outside its range"):
        parse("drkl[gamma=0]")
