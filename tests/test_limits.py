"""Numbers, texts and depths that would hang a command are refused at once, with the limit."""

import time
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.base.store import read_json, read_jsonl
from kdbench.variants.select import expand
from tests.conftest import Cli

DIGITS = "1" * 5001


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "100000000"], "--seeds 100000000: at most 1,000"),
        (["--init-seeds", "100000000"], "--init-seeds 100000000: at most 1,000"),
        (["--tuning", "999999999"], "--tuning 999999999: at most 1,000"),
        (["--tuning", DIGITS], "neither fixed nor a number of candidates"),
        (["--tuning", "4", "--tuning-seeds", "999999999"], "--tuning-seeds 999999999: at most"),
        (["--seeds", "1000", "--init-seeds", "1000"], "a run has at most 50,000"),
        (["--tuning", "1000", "--tuning-seeds", "1000"], "a run has at most 50,000"),
        (["--seeds", DIGITS], "is not a valid integer"),
        (["--objectives", f"jsd[beta={DIGITS}]"], "a variant has at most 2,000"),
        (["--objectives", f"sft[lr={DIGITS[:1000]}]"], "a number has at most 40"),
        (["--objectives", "sft," * 100_000], "at most 100,000 are read"),
        (["--set", f"recipe.lr={DIGITS}"], "at most 40"),
    ],
)
def test_a_flag_has_a_limit(cli: Cli, micro: Path, flags: list[str], message: str) -> None:
    begun = time.monotonic()
    said = cli("plan", "--suite", "micro.yaml", *flags, check=2).stderr
    assert message in said
    assert len(said) < 6000
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("nested", ["amid[divergence=", "[", "sft@["])
def test_an_expression_is_only_so_deep(nested: str) -> None:
    with pytest.raises(UserError, match=r"brackets more than 8 deep|do not match"):
        expand(nested * 3000 + "]" * 3000)


@pytest.mark.parametrize(
    "text", ['{"a": ' * 3000 + "1" + "}" * 3000, '{"a": ' + "[" * 40 + "]" * 40 + "}"]
)
def test_json_is_only_so_deep(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text + "\n")
    for read in (read_json, read_jsonl):
        with pytest.raises(UserError, match="not a JSON object"):
            read(path)
