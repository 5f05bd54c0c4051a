"""`kdbench check`: an author sees what holds, and the failing numbers where it does not."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli

SOUND = """
from kdbench.api import divergence, kl, number, preset

@divergence(
    "mine", source="here", infinite_where=["student"], grid={"scale": (1, 3)},
    scale=number(2.0, "(0, inf)"),
)
def mine(teacher_logp, student_logp, *, scale):
    return scale * kl(teacher_logp, student_logp)

preset("mine-tenfold", "mine[scale=10]", source="here")
"""

BROKEN = """
from kdbench.api import divergence

@divergence("naive", source="here")
def naive(teacher_logp, student_logp):
    return (teacher_logp.exp() * (teacher_logp - student_logp)).sum(-1)

@divergence("double", source="here")
def double(teacher_logp, student_logp):
    return (0.5 * (teacher_logp.double().exp() - student_logp.exp()) ** 2).sum(-1)
"""


def test_a_sound_plugin_holds_with_its_defaults_its_grid_and_its_presets(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SOUND)
    output = cli("check", "mine.py").stdout
    heads = [line for line in output.splitlines() if " hold" in line]
    variants = ("mine", "mine[scale=1]", "mine[scale=3]", "mine[scale=10]")
    assert heads == [f"{name} ({tmp_path}/mine.py:4): 14 of 14 hold" for name in variants]
    assert "ok     agrees in float32 with float64" in output
    assert "WRONG" not in output


def test_a_broken_plugin_shows_which_property_fails_and_its_numbers(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    reports = json.loads(cli("check", "forward-kl", "broken.py", "--json", check=1).stdout)
    failed = {
        report["variant"]: {item["property"]: item["detail"] for item in report["findings"]}
        for report in reports
    }
    assert "nan" in failed["naive"]["ignores ids that neither model can say"]
    shape = "returns one value per token in the dtype of its inputs"
    assert failed["naive"][shape] == ""
    assert "torch.float64 comes out where torch.float32 goes in" in failed["double"][shape]
    output = cli("check", "broken.py", check=1).stdout
    assert "WRONG  ignores ids that neither model can say" in output
    assert "torch.float64 comes out where torch.float32 goes in" in output


def test_expressions_are_checked_beside_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOUND)
    arguments = ("forward-kl", "amid[alpha=3]", "mine[scale=5]", "--plugin", "mine.py")
    reports = json.loads(cli("check", *arguments, "--json").stdout)
    assert [report["variant"] for report in reports] == list(arguments[:3])
    assert all(report["ok"] for report in reports)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing.py", "Error: plugin nothing.py: no such file"),
        ("raises.py", "raises.py:3: ZeroDivisionError"),
        ("forward-kll", "did you mean forward-kl"),
    ],
)
def test_what_cannot_be_checked_is_one_message(
    cli: Cli, tmp_path: Path, target: str, message: str
) -> None:
    (tmp_path / "raises.py").write_text("import kdbench.api\n\n1 / 0\n")
    said = cli("check", target, check=2).stderr
    assert message in said
    assert "Traceback" not in said
