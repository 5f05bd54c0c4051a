"""What may stand after `--objectives`, what it stands for, and what is refused with which words."""

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.api import choice, divergence, inner, kl, number, objective
from kdbench.base.errors import UserError
from kdbench.variants.objective import OBJECTIVES, PRESETS, Objective
from kdbench.variants.parameters import Choice, Flag, Inner, Number, split_list
from kdbench.variants.select import expand
from kdbench.variants.variant import Variant, parse, variant_of

pytestmark = pytest.mark.usefixtures("own_registry")

CORE = {
    *("sft", "forward-kl", "reverse-kl", "jeffreys", "jsd", "tvd", "skew-kl", "skew-reverse-kl"),
    *("alpha-beta", "amid"),
}


def _names(text: str) -> list[str]:
    return [str(variant) for variant in expand(text)]


def test_core_is_the_objectives_of_the_first_release() -> None:
    assert {variant.objective.name for variant in expand("core")} == CORE


def test_bare_amid_is_the_grid_on_the_command_line_and_the_defaults_in_python() -> None:
    for text in ("amid", "all"):
        alphas = [item.params["alpha"] for item in expand(text) if item.objective.name == "amid"]
        assert alphas == [-5, -3, -1, -0.5, 0, 0.5, 1]
    assert parse("amid").full_name == (
        "amid[alpha=-5,teacher_weight=0.1,divergence=alpha-beta[alpha=0.2,beta=0.7],order=pr,"
        "detach_assistant=false]"
    )


def test_a_list_keeps_its_order_and_respects_brackets() -> None:
    text = " jsd[beta=0.9], sft,amid[divergence=alpha-beta[alpha=1,beta=1],order=qr] ,"
    assert _names(text) == [
        "jsd[beta=0.9]",
        "sft",
        "amid[divergence=alpha-beta[alpha=1,beta=1],order=qr]",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("skew*", {"skew-kl", "skew-reverse-kl"}),
        ("*w*-kl", {"forward-kl", "skew-kl", "skew-reverse-kl"}),
        ("?vd", {"tvd"}),
        ("amid*", {*map(str, expand("amid")), str(parse("amid-released"))}),
    ],
)
def test_globs_expand_grids_and_take_presets(text: str, names: set[str]) -> None:
    assert set(_names(text)) == names


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("amid[alpha=-5]", "amid[alpha=-5.0]"),
        ("amid[alpha=-5]", "amid"),
        ("amid[alpha=-5e0]", "amid-paper"),
        ("amid[alpha=-0]", "amid[alpha=0.0]"),
        ("amid[divergence=kl]", "amid[divergence=forward-kl]"),
        ("amid[divergence=alpha-beta]", "amid[divergence=alpha-beta[beta=.7, alpha=0.20]]"),
        ("kl", "forward-kl[]"),
        ("jsd[ beta = 0.5 ]", " jsd "),
        ("skew-reverse-kl[detach_mixture=on]", "skew-reverse-kl[detach_mixture=TRUE]"),
    ],
)
def test_equal_content_is_one_variant(left: str, right: str) -> None:
    one, other = parse(left), parse(right)
    assert one == other
    assert hash(one) == hash(other)
    assert (str(one), one.full_name, one.slug) == (str(other), other.full_name, other.slug)
    assert str(one.plain_params()) == str(other.plain_params())  # "-0.0" would be another identity


def test_equal_content_runs_once() -> None:
    assert _names("amid-paper,amid[alpha=-5],amid[alpha=-5.0],jsd,jsd[beta=0.5]") == ["amid", "jsd"]


def test_presets_are_different_methods() -> None:
    assert {"amid-paper", "amid-released"} <= set(PRESETS)
    assert parse("amid-paper") == parse("amid")
    assert str(parse("amid-released")) == "amid[alpha=0.5,teacher_weight=0.5]"
    assert "inferred" in PRESETS["amid-paper"].source


def _parameter(parameter: object) -> st.SearchStrategy[object]:
    if isinstance(parameter, Number):
        low, high = (float(end) for end in parameter.interval[1:-1].split(","))
        return st.floats(
            None if low == float("-inf") else low,
            None if high == float("inf") else high,
            exclude_min=parameter.interval[0] == "(" and low != float("-inf"),
            exclude_max=parameter.interval[-1] == ")" and high != float("inf"),
            allow_nan=False,
            allow_infinity=False,
        )
    if isinstance(parameter, Flag):
        return st.booleans()
    if isinstance(parameter, Choice):
        return st.sampled_from(parameter.options)
    assert isinstance(parameter, Inner)
    return st.sampled_from(sorted(CORE - {"sft", "amid"})).flatmap(_variants)


def _variants(name: str) -> st.SearchStrategy[Variant]:
    parse("sft")  # loads the objectives
    item: Objective = OBJECTIVES[name]
    given_parameters = st.fixed_dictionaries(
        {}, optional={key: _parameter(value) for key, value in item.parameters.items()}
    )

    def legal(params: dict[str, object]) -> bool:
        resolved = {key: value.default for key, value in item.parameters.items()} | params
        return item.check is None or item.check(resolved) is None

    return given_parameters.filter(legal).map(lambda params: variant_of(item, params))


ANY = st.sampled_from(sorted(CORE)).flatmap(_variants)


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_a_variant_survives_being_written_and_read(variant: Variant) -> None:
    for text in (str(variant), variant.full_name):
        read = parse(text)
        assert read == variant
        assert (str(read), read.slug) == (str(variant), variant.slug)
    assert expand(variant.full_name) == [variant]


@settings(max_examples=300, deadline=None)
@given(ANY, ANY)
def test_slugs_are_folder_names_and_differ_where_names_do(one: Variant, other: Variant) -> None:
    for variant in (one, other):
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", variant.slug)
    assert (one.slug == other.slug) == (str(one) == str(other))


@pytest.mark.parametrize(
    "names",
    [
        ("zz-q[a=b_1]", "zz-q[a_b=1]"),
        ("zz-q[a=x]@dataset", "zz-q@a[x=dataset]"),
        ("zz-q[in=jsd[beta=0.1],c=2]", "zz-q[in=jsd[beta=0.1,c=2]]"),
        ("zz-q[a=b]", "zz-q@a[b=]"),
        ("zz-q[a=b,c=d]", "zz-q[a=b_c=d]"),
        ("zz-q[a=Z]", "zz-q[a=_]"),
    ],
)
def test_no_two_names_share_a_slug(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    slugs = set()
    for name in names:
        variant = parse("sft")
        monkeypatch.setitem(vars(variant), "name", name)
        slugs.add(variant.slug)
    assert len(slugs) == 2


def test_the_slugs_of_all_variants_differ() -> None:
    signs = [f"amid[alpha={alpha},order={order}]" for alpha in (-1, 1) for order in ("pr", "rq")]
    variants = expand(",".join(["all", "amid-released", *signs]))
    assert len({variant.slug for variant in variants}) == len(variants)


def test_plain_params_are_json() -> None:
    assert parse("amid[divergence=jsd]").plain_params() == {
        "alpha": -5.0,
        "teacher_weight": 0.1,
        "divergence": "jsd[beta=0.5]",
        "order": "pr",
        "detach_assistant": False,
    }


REFUSALS = [
    ("foward-kl", "unknown objective 'foward-kl'; did you mean forward-kl"),
    ("amid-papr", "did you mean amid-paper"),
    ("qqq", "unknown objective 'qqq'; known: adaptive-kl, all, alpha-beta,"),
    ("", "no objectives given"),
    (" , ", "no objectives given"),
    ("zz*", "no objective matches 'zz*'; known: "),
    ("jsd[betta=0.1]", "unknown parameter of jsd 'betta'; did you mean beta?"),
    ("tvd[beta=0.1]", "unknown parameter of tvd 'beta'; known: lr"),
    ("jsd[beta=0]", "jsd: beta=0 is outside its range (0, 1)"),
    ("jsd[beta=1]", "jsd: beta=1 is outside its range (0, 1)"),
    ("jsd[beta=nan]", "is outside its range"),
    ("jsd[beta=half]", "jsd: beta=half is not a number; it lies in (0, 1)"),
    ("amid[alpha=inf]", "is outside its range"),
    ("skew-kl[teacher_weight=1]", "is outside its range [0, 1)"),
    ("skew-reverse-kl[teacher_weight=0]", "is outside its range (0, 1]"),
    ("jeffreys[forward_weight=1.01]", "is outside its range [0, 1]"),
    ("skew-reverse-kl[detach_mixture=maybe]", "is neither true nor false"),
    ("amid[order=qp]", "order=qp is not one of pr, qr, rp, rq"),
    ("amid[teacher_weight=0,order=qr]", "with teacher_weight=0 the assistant is the student"),
    ("amid[teacher_weight=0,order=rq]", "with teacher_weight=0 the assistant is the student"),
    ("amid[teacher_weight=1]", "with teacher_weight=1 the assistant is the teacher"),
    ("amid[teacher_weight=1,order=rp]", "with teacher_weight=1 the assistant is the teacher"),
    ("amid[detach_assistant=true]", "leaves the student without a gradient"),
    ("amid[divergence=amid]", "only plain divergences can: adaptive-kl, "),
    ("amid[divergence=amid-paper]", "only plain divergences can"),
    ("amid[divergence=sft]", "sft cannot stand inside another objective"),
    ("amid[divergence=jds]", "unknown objective 'jds'; did you mean jsd"),
    ("amid[divergence=all]", "'all' stands for several objectives"),
    ("amid[divergence=jsd[beta=2]]", "jsd: beta=2 is outside its range (0, 1)"),
    ("amid-paper[alpha=1]", "the preset amid-paper takes no parameters; write amid["),
    ("amid*[alpha=1]", "unknown objective 'amid*'"),
    ("jsd[beta=0.1", "the brackets do not match"),
    ("jsd]beta=0.1[", "the brackets do not match"),
    ("jsd[beta=0.1]]", "the brackets do not match"),
    ("jsd[beta=0.1]x", "a variant is written name[parameter=value,...]"),
    ("jsd[beta]", "'beta' is not parameter=value"),
    ("jsd[beta=]", "'beta=' is not parameter=value"),
    ("jsd[beta=0.1,beta=0.2]", "beta is given twice"),
    ("alphanet[alpha_max=0.5,alpha_min=1]", "alpha_min=1.0 lies above alpha_max=0.5"),
    ("dkd[target_weight=0,nontarget_weight=0]", "the loss is always 0"),
    ("drkl[gamma=0]", "drkl: gamma=0 is outside its range"),
]


@pytest.mark.parametrize(("text", "words"), REFUSALS)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["all", "core"])
def test_a_group_is_not_one_objective(name: str) -> None:
    with pytest.raises(UserError, match="several objectives"):
        objective(name)


@given(st.text(alphabet="ajsd-kl[]=,.*?01 ", max_size=30))
def test_any_text_is_expanded_or_refused_by_a_user_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert expand(text)


@given(
    st.lists(st.from_regex(r"[a-z]+(\[[a-z]=[0-9],[a-z]=[a-z]\[[a-z]=1,b=2\]\])?", fullmatch=True))
)
def test_splitting_undoes_joining(parts: list[str]) -> None:
    assert split_list(",".join(parts)) == parts


def test_python_values_are_checked_like_text() -> None:
    amid = OBJECTIVES["amid"]
    assert variant_of(amid, {"alpha": -3, "divergence": parse("jsd")}) == parse(
        "amid[alpha=-3,divergence=jsd]"
    )
    for wrong in ({"divergence": parse("sft")}, {"divergence": 5}, {"alpha": True}, {"order": 1}):
        with pytest.raises(UserError):
            variant_of(amid, wrong)


def test_a_new_divergence_can_stand_inside_amid() -> None:
    divergence("scaled-kl", source="a test", scale=number(2.0, "(0, inf)"))(
        lambda p, q, *, scale: scale * kl(p, q)
    )
    assert (
        str(parse("amid[divergence=scaled-kl[scale=3]]")) == "amid[divergence=scaled-kl[scale=3]]"
    )
    with pytest.raises(UserError, match=r"scaled-kl: scale=0 is outside its range \(0, inf\)"):
        parse("amid[divergence=scaled-kl[scale=0]]")


def test_choices_and_inner_divergences_are_declared_like_numbers() -> None:
    divergence("chosen", source="a test", side=choice("p", "q"), of=inner("jsd[beta=0.1]"))(
        lambda p, q, *, side, of: of(p, q) if side == "p" else of(q, p)
    )
    assert parse("chosen").full_name == "chosen[side=p,of=jsd[beta=0.1]]"
    assert parse("chosen[side=q]").params["side"] == "q"
