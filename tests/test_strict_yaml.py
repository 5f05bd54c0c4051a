"""Reading YAML: against what YAML 1.2 says, and what other readers make of what is written."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kdbench.base.errors import UserError
from kdbench.base.strict_yaml import dump_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1f", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1e-3", 0.001),
        ("-.5E3", -500.0),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("'010'", "010"),
    ],
)
def test_words_and_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    tree, _ = read_yaml(f"field: {text}", "suite.yaml")
    assert tree == {"field": value}
    assert type(tree["field"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "suite.yaml:3: 'a' is written twice"),
        ("a:\n  b: {c: 1, c: 1}", "suite.yaml:2: 'c' is written twice"),
        ("a: &x\n  - *x", r"suite.yaml:2: \*x stands inside itself"),
        ("a:\n- " + "[" * 3000, "suite.yaml:2: nested more than 32 deep"),
        ("\na: " + "9" * 5001, "suite.yaml:2: a number of 5001 characters; at most 40"),
        ("a: *b", "suite.yaml:1: not YAML: found undefined alias"),
        ("? [a]\n: 1", "suite.yaml:1: a key has to be"),
        ("a: !!python/name:os.system", "suite.yaml:1: not YAML: could not determine"),
        ("a: !!binary aGk=", "suite.yaml:1: not YAML: could not determine"),
        ("a: 1\n---\nb: 2", "suite.yaml:2: not YAML"),
        ("a: " + "x" * 1_000_001, "at most 1000000"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_yaml(text, "suite.yaml")


def test_an_alias_bomb_is_refused_before_it_is_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.process_time()
    with pytest.raises(UserError, match=r"suite.yaml:5: more than 20000 values"):
        read_yaml("\n".join(lines), "suite.yaml")
    assert time.process_time() - began < 1


def test_a_merged_mapping_may_be_overridden() -> None:
    tree, _ = read_yaml("base: &base {lr: 1, steps: 2}\nown:\n  <<: *base\n  lr: 3", "suite.yaml")
    assert tree["own"] == {"lr": 3, "steps": 2}


def test_every_field_has_its_line() -> None:
    _, lines = read_yaml("recipe:\n  lr: 1\n\n  steps: 2\n", "suite.yaml")
    assert lines == {
        ("recipe",): "suite.yaml:1",
        ("recipe", "lr"): "suite.yaml:2",
        ("recipe", "steps"): "suite.yaml:4",
    }


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
likely = st.from_regex(r"[-+.0-9exob:_~]{1,8}", fullmatch=True)


@given(st.dictionaries(texts | likely, st.lists(scalars | texts | likely, max_size=4), max_size=4))
def test_what_is_written_is_read_alike_here_and_by_readers_of_yaml_1_1(tree: object) -> None:
    text = dump_yaml(tree)
    assert read_yaml(text, "spec.yaml")[0] == tree
    assert yaml.safe_load(text) == tree
