"""Every registered objective is held to every property, and broken ones are found out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.api import divergence, kl, labelled, objective, stateful
from kdbench.authoring.conformance import check
from kdbench.variants.objective import OBJECTIVES, PRESETS
from kdbench.variants.select import expand
from kdbench.variants.variant import DATASET, Variant, variant_of

pytestmark = pytest.mark.usefixtures("own_registry")

SETTINGS = [
    "jeffreys[forward_weight=0]",
    "jeffreys[forward_weight=1]",
    "jsd[beta=0.1]",
    "jsd[beta=0.9]",
    "skew-kl[teacher_weight=0]",
    "skew-kl[teacher_weight=0.9]",
    "skew-reverse-kl[teacher_weight=1]",
    "skew-reverse-kl[teacher_weight=0.1]",
    "skew-reverse-kl[detach_mixture=true]",
    "alpha-beta[alpha=0.1,beta=0.8]",
    "alpha-beta[alpha=1,beta=0]",
    "alpha-beta[alpha=0,beta=1]",
    "alpha-beta[alpha=1,beta=1]",
    "alpha-beta[alpha=0,beta=0]",
    "alpha-beta[alpha=0.5,beta=-0.5]",
    "alpha-beta[alpha=0.0001,beta=-0.0001]",
    "alpha-beta[alpha=0.0003,beta=0.7]",
    "alpha-beta[alpha=1,beta=0.0001]",
    "alphanet[alpha_max=3,alpha_min=0]",
    "adaptive-kl[mu=0]",
    "adaptive-kl[mu=0.9]",
    "dkd[target_weight=0]",
    "dkd[nontarget_weight=0]",
    "concrete-score[detach_weights=false]",
    "taid[t_start=1]",
    "alpha-beta[alpha=2,beta=-1]",
    "alpha-beta[alpha=-1,beta=2]",
    "alpha-beta[alpha=-1,beta=-0.5]",
    "alpha-beta[alpha=0,beta=-0.7]",
    "alpha-beta[alpha=-0.2,beta=0.1]",
    "alpha-beta[alpha=-0.5,beta=2]",
    "alpha-beta[alpha=2,beta=0]",
    "amid[alpha=1.1,divergence=alpha-beta[alpha=0,beta=0.7]]",
    *(
        f"amid[alpha={alpha},divergence=kl,order={order}]"
        for alpha in (-50, 0.9, 1, 3)
        for order in ("pr", "qr", "rp", "rq")
    ),
    "amid[alpha=-50,divergence=tvd,order=qr]",
    "amid[alpha=0.9,divergence=jsd,order=rp]",
    "amid[alpha=1,divergence=tvd]",
    "amid[alpha=3,divergence=jsd,order=rq]",
    *(f"amid[divergence={inner},order=rq]" for inner in ("reverse-kl", "skew-kl", "jeffreys")),
    *(f"amid[divergence={inner}]" for inner in ("alphanet", "adaptive-kl", "todi", "logit-mse")),
    "amid[alpha=0.999999,divergence=kl]",
    "amid[alpha=1.000001,divergence=kl,order=rq]",
    "amid[teacher_weight=0]",
    "amid[teacher_weight=1,order=rq]",
    "amid[alpha=1,divergence=kl,order=rq,detach_assistant=true]",
]


def _walk() -> list[Variant]:
    """Every objective, grids included, every preset and method, and the settings above.

    Where the sequences come from does not matter here.
    """
    variants = [
        *expand("all"),
        *(variant_of(item, {}) for item in map(OBJECTIVES.__getitem__, OBJECTIVES)),
        *map(objective, PRESETS),
        *map(objective, SETTINGS),
    ]
    values = [replace(variant, sequences=DATASET) for variant in variants]
    return list({variant.full_name: variant for variant in values}.values())


@pytest.mark.parametrize("variant", _walk(), ids=str)
def test_an_objective_conforms(variant: Variant) -> None:
    failed = [f"{item.property}: {item.detail}" for item in check(variant) if not item.ok]
    assert not failed, f"{variant} ({variant.objective.defined_at})\n" + "\n".join(failed)


def test_every_built_in_divergence_declares_its_infinities() -> None:
    undeclared = [
        str(variant)
        for variant in _walk()
        if variant.objective.kind == "divergence" and variant.infinite_where() is None
    ]
    assert not undeclared


SHAPE = "returns one value per token in the dtype of its inputs"
DIVERGENCE = "is positive, and zero where student and teacher agree"
FINITE = "has a finite gradient that sums to zero over the vocabulary"
GRADIENT = "has the gradient of its value"
DESCENT = "lowers its value under gradient descent"
ORDER = "does not depend on the order of the vocabulary"
PADDING = "ignores ids that neither model can say"
INFINITE = "is infinite exactly where it declares to be, and never NaN"
PER_TOKEN = "treats tokens independently"
SAME = "is deterministic"
INPUTS = "leaves its inputs as they are"
EMPTY = "takes a batch without tokens"
FLOAT32 = "agrees in float32 with float64"
LARGE = "agrees with float64 at a vocabulary of 151,936"
RESUMES = "goes on from its saved state"

Function = Callable[[Tensor, Tensor], Tensor]


def _failures(function: Function, **declared: Any) -> dict[str, str]:
    """The properties that a divergence lacks, each with what `check` says of it."""
    divergence("broken", source="a test", **declared)(function)
    return {item.property: item.detail for item in check(objective("broken")) if not item.ok}


def _in_place(p: Tensor, q: Tensor) -> Tensor:
    value = kl(p, q)
    p.sub_(0.1)
    return value


def _naive(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def _half_the_gradient(p: Tensor, q: Tensor) -> Tensor:
    with torch.no_grad():
        reverse = kl(q, p)
    return kl(p, q) * (1 + reverse)


def _fast_path(p: Tensor, q: Tensor) -> Tensor:
    return kl(p.bfloat16(), q.bfloat16()).float() if p.dtype == torch.float32 else kl(p, q)


def _early_infinity(p: Tensor, q: Tensor) -> Tensor:
    """Finite in float64, and no larger than float32 can hold."""
    return (kl(p, q) * 1e37).sinh().asinh() if p.dtype == torch.float32 else kl(p, q) * 1e37


def _textbook_power_mean(p: Tensor, q: Tensor) -> Tensor:
    """Close to the geometric mean, where the outer power of 2e6 multiplies a rounding error."""
    power = 0.5e-6
    mixture = (0.5 * (power * p).exp() + 0.5 * (power * q).exp()).log() / power
    return kl(p, torch.log_softmax(mixture, -1))


def _roots(p: Tensor, q: Tensor) -> Tensor:
    """The root of 0 has no gradient; half its logarithm has one."""
    return 0.5 * (p.exp().sqrt() - q.exp().sqrt()).square().sum(-1)


def _sum_of_ratios(p: Tensor, q: Tensor) -> Tensor:
    """inf - inf where the models have a zero each, at different ids."""
    neither = (p == -math.inf) & (q == -math.inf)
    return (q - p).masked_fill(neither, 0.0).sum(-1).square()


def _chi_squared(p: Tensor, q: Tensor) -> Tensor:
    neither = (p == -math.inf) & (q == -math.inf)
    ratio = 2 * q.masked_fill(q == -math.inf, -200.0) - p
    return torch.expm1(torch.logsumexp(ratio.masked_fill(neither, -math.inf), -1))


BROKEN: dict[str, tuple[Function, str, str]] = {
    "a mean": (lambda p, q: kl(p, q).mean(), SHAPE, "the shape is [] for 5 tokens"),
    "always float64": (lambda p, q: kl(p.double(), q.double()), SHAPE, "torch.float64 comes out"),
    "one mean for all": (lambda p, q: kl(p, q).mean().expand(len(p)), PER_TOKEN, "together"),
    "a naive product of 0 and -inf": (_naive, PADDING, "nan"),
    "0 times -inf": (_naive, INFINITE, "nan"),
    "masked after the gradient": (
        lambda p, q: (q.exp() * (q - p)).nan_to_num(nan=0.0).sum(-1), PADDING, "nan",
    ),
    "in place": (_in_place, INPUTS, "changes teacher_logp in place"),
    "negative": (lambda p, q: kl(p, q) - 0.01, DIVERGENCE, "-0.0099"),
    "not 0 where equal": (
        lambda p, q: -(p.exp() * q.masked_fill(q == -math.inf, 0.0)).sum(-1), DIVERGENCE, "not 0",
    ),
    "half the gradient": (_half_the_gradient, GRADIENT, "central differences"),
    "uphill": (lambda p, q: 2 * kl(p, q).detach() - kl(p, q), DESCENT, "from"),
    "the first id matters more": (
        lambda p, q: kl(p, q) + (p[:, 0].exp() - q[:, 0].exp()).square(), ORDER, "permutation",
    ),
    "noisy": (lambda p, q: kl(p, q) * torch.rand(len(p), dtype=p.dtype), SAME, "then"),
    "always 0": (lambda p, q: kl(p, p), DIVERGENCE, "where the distributions differ"),
    "nothing to learn": (lambda p, q: kl(p, p), FINITE, "raised RuntimeError"),
    "no tokens": (
        lambda p, q: kl(p.view(len(p), -1), q.view(len(q), -1)),
        EMPTY, "cannot reshape tensor of 0 elements",
    ),
    "bfloat16 inside": (_fast_path, FLOAT32, "in float32, "),
    "infinite too early": (_early_infinity, FLOAT32, "value inf in float32"),
    "an outer power": (_textbook_power_mean, FLOAT32, "tolerance"),
    # Each id loses 1e-7, which 8 ids forgive and 151,936 do not.
    "one plus a probability": (
        lambda p, q: 0.5 * ((1 + p.exp()) - (1 + q.exp())).abs().sum(-1), LARGE, "151,936 ids",
    ),
    "inf - inf": (_sum_of_ratios, INFINITE, "each has a zero of its own"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "property_", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_objective_is_found_out(function: Function, property_: str, said: str) -> None:
    assert said in _failures(function).get(property_, "")


@pytest.mark.parametrize(
    ("function", "declared"),
    [
        (
            lambda p, q: (p.exp() * ((p.exp() + 1e-8).log() - (q.exp() + 1e-8).log())).sum(-1),
            ["student"],
        ),
        (kl, []),
        (kl, ["student", "teacher"]),
        (_roots, []),
    ],
    ids=["smoothed", "too few", "too many", "no gradient"],
)
def test_infinities_that_are_declared_wrongly_are_found_out(
    function: Function, declared: list[str]
) -> None:
    assert INFINITE in _failures(function, infinite_where=declared)


@pytest.mark.parametrize("declared", [None, ["student"]])
def test_a_sound_objective_has_no_findings(declared: list[str] | None) -> None:
    assert not _failures(lambda p, q: kl(p, q), infinite_where=declared)


def test_what_float32_cannot_hold_may_be_infinite_in_float32() -> None:
    """sum q^2 / p is e^150 and more where the teacher is that certain of something else."""
    assert not _failures(_chi_squared, infinite_where=["teacher"])


def test_a_stop_gradient_is_not_a_wrong_gradient() -> None:
    assert GRADIENT not in _failures(lambda p, q: kl(p, q) * (1 + kl(q, p).detach()))


def test_an_exception_in_the_objective_is_a_finding() -> None:
    def raises(p: Tensor, q: Tensor) -> Tensor:
        raise IndexError("ids beyond the vocabulary")

    divergence("broken", source="a test")(raises)
    findings = check(objective("broken"))
    assert not any(finding.ok for finding in findings)
    assert all("IndexError: ids beyond the vocabulary" in finding.detail for finding in findings)


def test_a_labelled_objective_is_held_to_all_but_the_divergence() -> None:
    def off_by_one(p: Tensor, q: Tensor, *, labels: Tensor) -> Tensor:
        return -q.gather(-1, (labels - 1).unsqueeze(-1)).squeeze(-1)

    labelled("broken", source="a test")(off_by_one)
    found = {finding.property: finding.ok for finding in check(objective("broken"))}
    assert DIVERGENCE not in found
    assert not found[ORDER]
    assert found[GRADIENT]


@pytest.mark.parametrize(("saved", "ok"), [(["scale"], True), ([], False)])
def test_a_stateful_objective_is_held_to_its_saved_state(saved: list[str], ok: bool) -> None:
    class Growing:
        def __init__(self) -> None:
            self.scale = 1.0

        def per_token(self, p: Tensor, q: Tensor) -> Tensor:
            return self.scale * kl(p, q)

        def after_step(self, loss: float, progress: float) -> None:
            self.scale += loss * progress

        def state_dict(self) -> dict[str, float]:
            return {name: getattr(self, name) for name in saved}

        def load_state_dict(self, state: Mapping[str, float]) -> None:
            for name, value in state.items():
                setattr(self, name, value)

    stateful("broken", source="a test")(Growing)
    found = {finding.property: finding.ok for finding in check(objective("broken"))}
    assert found.pop(RESUMES) == ok
    assert DIVERGENCE not in found
    assert all(found.values())


def test_amid_declares_nothing_where_its_divergence_does_not() -> None:
    divergence("quiet", source="a test")(lambda p, q: kl(p, q))
    variant = objective("amid[alpha=1,divergence=quiet]")
    assert variant.infinite_where() is None
    assert all(finding.ok for finding in check(variant))
