"""Objectives on sources, and published methods: how they are written, named and refused."""

import re

import pytest

from kdbench.api import method
from kdbench.base.errors import UserError
from kdbench.variants.objective import METHODS, OBJECTIVES, SOURCES
from kdbench.variants.select import expand
from kdbench.variants.variant import parse

pytestmark = pytest.mark.usefixtures("own_registry")


PUBLISHED = {
    "seqkd": "sft@teacher",
    "imitkd": "forward-kl@student",
    "on-policy-kd": "reverse-kl@student",
    "gkd": "jsd[beta=0.5]@mixed[student_share=0.5]",
    "minillm": "reverse-kl@policy-gradient[teacher_mix=0.2,clip=0.2,gamma=0.95,rollout_steps=4]",
    "distillm": "skew-reverse-kl[teacher_weight=0.9,detach_mixture=false]@adaptive[threshold=0,"
    "increment=0.1,tolerance=0.1,capacity=1000]",
    "distillm-2": "skew-kl[teacher_weight=0.1]@contrastive[student_divergence="
    "skew-reverse-kl[teacher_weight=0.9,detach_mixture=true],student_share=1]",
}


def test_the_methods_are_the_published_ones() -> None:
    assert {name: parse(name).full_name for name in METHODS} == PUBLISHED


def test_the_sources_are_those_of_the_catalogue() -> None:
    assert set(SOURCES) == {
        "dataset",
        "teacher",
        "student",
        "mixed",
        "adaptive",
        "contrastive",
        "policy-gradient",
    }


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_variant_that_is_a_published_method_has_its_name(name: str) -> None:
    written = parse(PUBLISHED[name])
    assert written == parse(name)
    assert (str(written), written.slug) == (name, name)


def test_a_methods_parameters_belong_to_its_objective_or_its_source() -> None:
    variant = parse("gkd[beta=0.1,student_share=1]")
    assert str(variant) == "jsd[beta=0.1]@mixed[student_share=1]"
    assert parse(variant.full_name) == variant


def test_a_variant_on_the_dataset_is_the_plain_variant() -> None:
    assert str(parse("jsd@dataset")) == "jsd"
    assert parse("jsd@dataset") == parse("jsd")


def test_the_source_is_part_of_a_variants_identity() -> None:
    names = ["jsd", "jsd@teacher", "jsd@student", "gkd", "jsd@mixed[student_share=0.25]"]
    variants = expand(",".join(names))
    assert [str(variant) for variant in variants] == names
    assert len({variant.slug for variant in variants}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", item.slug) for item in variants)


def test_a_grid_is_drawn_from_a_source_as_a_whole() -> None:
    variants = expand("amid@student")
    assert len(variants) == 7
    assert {variant.sequences.name for variant in variants} == {"student"}


def test_all_is_every_objective_and_every_method() -> None:
    variants = expand("all")
    off_policy = [item for item in variants if item.sequences.name == "dataset"]
    assert {variant.objective.name for variant in off_policy} == set(OBJECTIVES)
    assert [str(item) for item in variants if item not in off_policy] == list(METHODS)
    assert [str(item) for item in expand("methods")] == list(METHODS)


def test_more_is_what_is_neither_core_nor_a_method() -> None:
    names = {
        variant.full_name for group in ("core", "more", "methods") for variant in expand(group)
    }
    assert names == {variant.full_name for variant in expand("all")}


def test_globs_find_methods() -> None:
    assert [str(variant) for variant in expand("distillm*")] == ["distillm", "distillm-2"]


def test_a_plugins_method_names_its_variant() -> None:
    method("tv-on-policy", "tvd@student", source="a test")
    assert str(parse("tvd@student")) == "tv-on-policy"


def test_an_inner_divergence_of_a_source_is_a_plain_one() -> None:
    with pytest.raises(UserError, match="only plain divergences can"):
        parse("skew-kl@contrastive[student_divergence=sft]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sft@student", "would train the student on its own samples"),
        ("sft@mixed", "would train the student on its own samples"),
        ("sft@policy-gradient", "would train the student on its own samples"),
        ("gkd@student", "gkd has a source: it is jsd"),
        ("gkd[bet=1]", "unknown parameter of gkd 'bet'; did you mean beta?"),
        ("gkd[beta=1]", "jsd: beta=1 is outside its range (0, 1)"),
        ("jsd@mixd", "unknown source 'mixd'; did you mean mixed?"),
        ("jsd@mixed[share=1]", "unknown parameter of @mixed 'share'"),
        ("jsd@mixed[student_share=2]", "@mixed: student_share=2 is outside its range [0, 1]"),
        ("jsd@student[x=1]", "@student has no parameters, so 'x' cannot be set"),
        ("jsd@", "unknown source ''"),
        ("jsd@student@mixed", "unknown source 'student@mixed'"),
        ("amid[divergence=gkd]", "only plain divergences can"),
        ("core@student", "'core' stands for several objectives"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(text)
    assert words in str(caught.value)
