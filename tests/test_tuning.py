"""Learning rates in expressions, and the candidates of equal budgets."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.api import divergence
from kdbench.base.errors import UserError
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.trial import Trial, trials_of
from kdbench.pipeline.tuning import Range, candidates, search_space, with_neighbours
from kdbench.variants.objective import METHODS, OBJECTIVES
from kdbench.variants.parameters import Number, declare
from kdbench.variants.select import families
from kdbench.variants.variant import parse
from tests.training_tools import plain_job

LR = 0.004


def tried(expression: str, trials: int = 5) -> list[str]:
    (family,) = families(expression)
    return [variant.name for variant in candidates(family, trials, suite="instruct", lr=LR)]


def space(expression: str) -> dict[str, object]:
    (family,) = families(expression)
    return dict(search_space(family, LR))


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("forward-kl[lr=0.002]", "forward-kl[lr=0.002]"),
        ("amid[lr=8e-3, alpha=-3]", "amid[alpha=-3,lr=0.008]"),
        ("gkd[lr=0.002]", "gkd[lr=0.002]"),
        ("jsd[beta=0.9,lr=1]@mixed", "jsd[beta=0.9,lr=1]@mixed"),
        ("amid-paper[lr=0.002]", "amid[lr=0.002]"),
    ],
)
def test_learning_rate_is_the_last_parameter_of_a_name(expression: str, name: str) -> None:
    variant = parse(expression)
    assert variant.name == name
    assert parse(variant.full_name) == variant


@given(st.floats(1e-9, 1e3), st.sampled_from(["sft", "amid", "gkd", "jsd[beta=0.2]@student"]))
def test_a_learning_rate_survives_being_written_and_read(lr: float, name: str) -> None:
    variant = replace(parse(name), lr=lr)
    assert parse(variant.name).lr == lr
    assert parse(variant.full_name) == variant


def test_variants_that_differ_in_their_learning_rate_have_folders_of_their_own() -> None:
    slugs = {parse(f"gkd{given}").slug for given in ("", "[lr=0.004]", "[lr=0.002]")}
    assert len(slugs) == 3


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("forward-kl[lr=0]", "forward-kl: lr=0 is outside its range (0, inf)"),
        ("forward-kl[lr=inf]", "lr=inf is outside its range"),
        ("forward-kl[lr=fast]", "lr=fast is not a number"),
        ("jsd[le=1]", "did you mean lr?"),
        ("tvd[lrr=1]", "unknown parameter of tvd 'lrr'; did you mean lr?"),
        ("jsd@mixed[lr=1]", "unknown parameter of @mixed 'lr'"),
        ("amid[divergence=jsd[lr=1]]", "lr is the learning rate of a whole variant"),
    ],
)
def test_wrong_learning_rates_are_refused(expression: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(expression)
    assert message in str(caught.value)


def test_an_objective_cannot_declare_a_parameter_named_lr() -> None:
    with pytest.raises(UserError, match="that is the harness's"):
        divergence("own-rate", source="this test", lr=0.1)
    assert "own-rate" not in OBJECTIVES


def test_a_trial_alone_says_the_learning_rate_and_only_where_it_has_one() -> None:
    assert parse("amid[lr=0.002]").params == parse("amid").params
    assert Trial(parse("sft[lr=0.004]")).spec.lr == 0.004
    assert Trial(parse("sft")).spec.lr is None


def test_a_trial_trains_with_its_own_learning_rate(artifacts: Artifacts, tmp_path: Path) -> None:
    def rate(expression: str) -> float:
        return plain_job(artifacts, parse(expression), tmp_path).recipe.lr

    assert rate("sft[lr=0.07]") == 0.07
    assert rate("sft") == artifacts.suite.recipe.lr


def test_neighbours_are_half_and_twice_of_a_variants_own_rate_each_once() -> None:
    found = with_neighbours([parse("sft"), parse("sft[lr=0.008]"), parse("tvd")], LR)
    assert [variant.name for variant in found] == [
        "sft", "sft[lr=0.002]", "sft[lr=0.008]", "sft[lr=0.004]", "sft[lr=0.016]",
        "tvd", "tvd[lr=0.002]", "tvd[lr=0.008]",
    ]  # fmt: skip


@pytest.mark.parametrize("expression", ["sft", "amid", "amid[alpha=-3]", "gkd", "concrete-score"])
def test_candidates_are_as_many_as_asked_for_all_different_and_begin_untuned(
    expression: str,
) -> None:
    names = tried(expression, 7)
    assert len(set(names)) == 7
    assert names[0] == parse(expression).name
    assert names[:3] == tried(expression, 3)


def test_what_is_written_is_not_tuned() -> None:
    found = [parse(name) for name in tried("amid[alpha=-3,lr=0.002]", 6)]
    assert {(variant.params["alpha"], variant.lr) for variant in found} == {(-3.0, 0.002)}
    assert len({variant.params["teacher_weight"] for variant in found}) > 1


def test_a_method_keeps_its_source_and_tunes_its_objective() -> None:
    found = [parse(name) for name in tried("distillm")]
    assert {variant.sequences.name for variant in found} == {"adaptive"}
    assert len({variant.params["teacher_weight"] for variant in found}) == 5


def test_search_space_is_grids_choices_and_finite_ranges_beside_the_learning_rate() -> None:
    found = space("amid")
    assert found["lr"] == Range(LR / 4, LR * 4, log=True)
    assert found["alpha"] == OBJECTIVES["amid"].grid["alpha"]
    assert found["order"] == ("pr", "qr", "rp", "rq")
    assert found["teacher_weight"] == Range(0, 1)
    assert set(found) == {"lr", "alpha", "order", "teacher_weight"}
    assert set(space("amid-paper")) <= {"lr", "detach_assistant"}  # a preset fixes what it names


def test_an_objective_without_parameters_tunes_its_learning_rate() -> None:
    rates = [parse(name).lr or LR for name in tried("forward-kl", 17)[1:]]
    assert all(LR / 4 <= rate <= 4 * LR for rate in rates)
    # Sixteen Sobol points fall into sixteen equal cells of the logarithm, one in most of them.
    assert sum(rate < LR for rate in rates) in (7, 8, 9)


def test_a_number_is_searched_where_it_says_and_else_where_it_is_finite() -> None:
    assert Number(0.2, "(-inf, inf)", "[-1, 1.5]").searched() == (-1, 1.5)
    assert Number(0.2, "(0, 1]").searched() == (0, 1)
    assert Number(0.2, "[0, inf)").searched() is None
    with pytest.raises(UserError, match="is not an interval"):
        declare(Number(0.2, search="-1 to 1"))


def test_families_hold_every_objective_once_and_again_where_a_parameter_is_written() -> None:
    labels = [family.label for family in families("all,sft,amid")]
    assert labels == [*OBJECTIVES, *METHODS]
    labels = [family.label for family in families("amid, amid[alpha=-5], amid-paper, amid*")]
    assert labels[:3] == ["amid", "amid[alpha=-5]", "amid-paper"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sft[lr=0.002]", "nothing is left to tune"),
        ("concrete-score[lr=0.002]", "only 9 different candidates"),
    ],
)
def test_more_candidates_than_there_are_is_refused(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tried(expression, 10)


def test_missing_optuna_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'kdbench\[tuning\]'"):
        tried("sft")


def test_trials_of_candidates_have_seeds_of_their_own() -> None:
    found = [trial.seed for trial in trials_of([parse("sft")], 2, first_seed=1000)]
    assert found == [0, 0, 1000, 1001]
