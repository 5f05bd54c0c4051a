"""What is particular to a family: KLs mixed by comparison or split at the label, squared logits."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kdbench.variants.variant import parse
from tests import decimal_oracle as oracle
from tests.objective_tools import SOME, assert_same, logits, seeds, value_and_gradient

LABELS = torch.tensor([0, 3, 8, 3])
WORDS = ("student", "teacher", "uniform")


def _labelled(name: str, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    return value_and_gradient(parse(name), teacher, student, LABELS)


@pytest.mark.parametrize(
    ("p", "q", "mu", "of_head"),
    [
        pytest.param([4, 3, 2, 1], [3, 1, 1, 5], 0.5, [1, 0, 0, 0], id="crossing mu is tail"),
        pytest.param([1, 9], [3, 7], 0.5, [0, 1], id="the first id is head"),
        pytest.param([1, 9], [3, 7], 0.0, [0, 1], id="the first id is head at mu 0"),
        pytest.param([8, 5, 5, 2], [6, 2, 6, 6], 0.7, [1, 0, 0, 0], id="equal ids enter together"),
    ],
)
def test_the_head_of_adaptive_kl(p: list[int], q: list[int], mu: float, of_head: list[int]) -> None:
    one, other, head = (torch.tensor(item, dtype=torch.float64) for item in (p, q, of_head))
    one, other = one / one.sum(), other / other.sum()
    gap = (one - other).abs()
    forward, reverse = (one * (one / other).log()).sum(), (other * (other / one).log()).sum()
    wanted = ((gap * head).sum() * forward + (gap * (1 - head)).sum() * reverse) / gap.sum()
    found = parse(f"adaptive-kl[mu={mu}]")(one.log().unsqueeze(0), other.log().unsqueeze(0))
    torch.testing.assert_close(found[0], wanted)


def test_adaptive_kl_drops_an_infinite_kl_whose_weight_is_zero() -> None:
    """The models agree on the head, and the student excludes an id of the tail."""
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    values, gradient = value_and_gradient(parse("adaptive-kl"), teacher, student)
    assert values.item() == pytest.approx(0.5 * math.log(2.0))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["adaptive-kl", "adaptive-kl[mu=0.9]", "todi"])
def test_ties_do_not_make_the_order_of_the_vocabulary_matter(name: str) -> None:
    _, student = logits(40, ids=12)
    teacher = torch.tensor([0.0, 1, 1, 2, 1, 0, 2, 2, 3, 3, 1, 0], dtype=torch.float64).log1p()
    teacher = teacher.expand(4, 12)
    values, gradient = value_and_gradient(parse(name), teacher, student)
    for seed in range(5):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        moved = value_and_gradient(parse(name), teacher[:, order], student[:, order])
        assert_same(moved, (values, gradient[:, order]))


def test_adaptive_kl_of_a_flat_teacher_is_the_forward_kl() -> None:
    flat, student = torch.zeros(4, 9, dtype=torch.float64), logits(41)[1]
    found, wanted = (
        value_and_gradient(parse(name), flat, student) for name in ("adaptive-kl", "forward-kl")
    )
    assert_same(found, wanted)


@pytest.mark.parametrize(
    ("teacher", "student", "forward", "reverse"),
    [([0, 0, 0], [4, 0, 0], 2, 1), ([4, 0, 0], [0, 0, 0], 1, 2), ([2, 0, 0], [0, 2, 0], 1, 1)],
)
def test_bdkd_counts_the_kl_from_the_flatter_one_twice(
    teacher: list[int], student: list[int], forward: int, reverse: int
) -> None:
    pair = [torch.tensor([item], dtype=torch.float64) for item in (teacher, student)]
    found, one, other = (
        value_and_gradient(parse(name), *pair) for name in ("bdkd", "forward-kl", "reverse-kl")
    )
    for part in (0, 1):
        assert_same(found[part], forward * one[part] + reverse * other[part])


def test_todi_has_the_gradient_of_its_parts_with_constant_weights() -> None:
    teacher, student = logits(43)
    free = student.clone().requires_grad_()
    p, q = teacher.softmax(-1), free.softmax(-1)
    w = p / (p + q.detach())
    values = (w * p * (p / q).log() + (1 - w) * q * (q / p).log()).sum(-1)
    wanted = torch.autograd.grad(values.sum(), free)
    assert_same(value_and_gradient(parse("todi"), teacher, student), (values.detach(), *wanted))


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_kls_split_at_the_label_are_their_formulas(scale: float) -> None:
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
        assert_same(_labelled(name, teacher, student)[0], exact, name, rtol=1e-9, atol=1e-13)


@SOME
@given(seeds)
def test_the_kls_are_their_two_parts(seed: int) -> None:
    """KL(p || q) = split + (1 - p_label) rest; the reverse KL likewise with q_label."""
    teacher, student = logits(seed)
    split, rest, one, two = (
        _labelled(name, teacher, student)[0]
        for name in (
            "dkd[nontarget_weight=0]",
            "dkd[target_weight=0,nontarget_weight=1]",
            "drkl[gamma=1]",
            "drkl[gamma=2]",
        )
    )
    p, q = (item.softmax(-1).gather(-1, LABELS[:, None])[:, 0] for item in (teacher, student))
    assert_same(split + (1 - p) * rest, _labelled("forward-kl", teacher, student)[0])
    assert_same(one - q * (two - one), _labelled("reverse-kl", teacher, student)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("certain", ["teacher", "student", "both"])
def test_a_model_certain_of_the_label_has_no_rest(certain: str, dtype: torch.dtype) -> None:
    teacher, student = (item.to(dtype) for item in logits(52))
    one_hot = torch.full_like(student, -math.inf)
    one_hot[range(4), LABELS] = 0.0
    p, q = teacher.softmax(-1)[range(4), LABELS], student.softmax(-1)[range(4), LABELS]
    teacher = one_hot if certain != "student" else teacher
    student = one_hot if certain != "teacher" else student
    infinite, zero = torch.full_like(p, math.inf), torch.zeros_like(p)
    wanted = {
        "teacher": {"dkd": -q.log(), "drkl": infinite},
        "student": {"dkd": infinite, "drkl": -p.log()},
        "both": {"dkd": zero, "drkl": zero},
    }
    for name, value in wanted[certain].items():
        found, gradient = _labelled(name, teacher, student)
        assert_same(found, value, name)
        assert gradient[found.isfinite()].isfinite().all(), name


def test_logit_mse_takes_logits_as_they_are() -> None:
    teacher, student = logits(61)
    wanted = (student - teacher).var(-1, correction=0)
    assert_same(parse("logit-mse")(teacher, student), wanted)
    assert_same(parse("logit-mse")(teacher + 5.0, student - 3.0), wanted)


@SOME
@given(seeds, st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_concrete_score_has_the_gradient_of_its_theorem(seed: int, first: str, second: str) -> None:
    """CSD, Theorem 3: w2 (d - E_1 d) + w1 (d - E_2 d) for the logits, weights held."""
    teacher, student = logits(seed)
    p, q = teacher.softmax(-1), student.softmax(-1)
    words = {"student": q, "teacher": p, "uniform": torch.full_like(p, 1 / 9)}
    d = student - teacher

    def half(one: Tensor, other: Tensor) -> Tensor:
        return other * (d - (one * d).sum(-1, keepdim=True))

    wanted = half(words[first], words[second]) + half(words[second], words[first])
    name = f"concrete-score[first_weight={first},second_weight={second}]"
    _, gradient = value_and_gradient(parse(name), teacher, student)
    assert_same(gradient, wanted, rtol=1e-7, atol=1e-10)


def test_undetached_weights_have_the_gradient_of_the_variance() -> None:
    teacher, student = logits(62)
    free = student.clone().requires_grad_()
    q, d = free.softmax(-1), free - teacher
    variance = (q * d**2).sum(-1) - (q * d).sum(-1) ** 2
    wanted = variance.detach(), *torch.autograd.grad(variance.sum(), free)
    variant = parse("concrete-score[detach_weights=false]")
    assert_same(value_and_gradient(variant, teacher, student), wanted)


@pytest.mark.parametrize(("first", "second"), [*product(WORDS, repeat=2)])
def test_zeros_under_the_weights_of_a_concrete_score(first: str, second: str) -> None:
    """Ids that neither model can say do not count; a zero weight takes an infinite d away."""
    variant = parse(f"concrete-score[first_weight={first},second_weight={second}]")
    teacher, student = logits(63)
    wanted, slope = value_and_gradient(variant, teacher[:, 4:], student[:, 4:])
    teacher[:, :4] = student[:, :4] = -math.inf
    values, gradient = value_and_gradient(variant, teacher, student)
    assert_same((values, gradient[:, 4:]), (wanted, slope))
    assert (gradient[:, :4] == 0).all()
    for zero_of, side in (("teacher", teacher), ("student", student)):
        before, side[:, 5] = side[:, 5].clone(), -math.inf
        values, gradient = value_and_gradient(variant, teacher, student)
        if first == second == zero_of:
            assert values.isfinite().all()
            assert gradient.isfinite().all()
        else:
            assert (values == math.inf).all()
        side[:, 5] = before
