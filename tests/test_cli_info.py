"""The commands that only tell: objectives, suites, plan, doctor."""

import json
from pathlib import Path

import pytest

from kdbench import doctor
from tests.conftest import Cli

PLUGIN = """
from kdbench.api import divergence, kl

@divergence("mine", source="here")
def mine(teacher_logp, student_logp):
    return kl(teacher_logp, student_logp)
"""


def test_objectives_as_json_holds_every_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    items = json.loads(cli("objectives", "--json", "--plugin", "mine.py").stdout)
    names = {item["name"] for item in items}
    assert {"sft", "forward-kl", "amid", "alpha-beta", "amid-paper", "mine"} <= names
    by_name = {item["name"]: item for item in items}
    assert by_name["mine"]["defined_at"].endswith("mine.py:4")
    assert by_name["amid-paper"]["kind"] == "preset"
    assert by_name["jsd"]["parameters"] == [{"name": "beta", "default": "0.5", "range": "(0, 1)"}]


def test_objectives_lists_name_parameters_and_source(cli: Cli) -> None:
    output = cli("objectives").stdout
    assert "skew-kl" in output
    assert "arXiv:2402.03898" in output


def test_suites_lists_the_sets(cli: Cli) -> None:
    rows = json.loads(cli("suites", "--json").stdout)
    assert {row["name"]: row["sets"] for row in rows}["instruct"] == [
        "dolly",
        "self-inst",
        "vicuna",
    ]


def test_plan_counts_trials_and_writes_nothing(micro: Path, cli: Cli, tmp_path: Path) -> None:
    arguments = ("--suite", "micro.yaml", "--backend", "transformers", "--objectives", "core")
    figures = json.loads(cli("plan", *arguments, "--json").stdout)
    assert len(figures["variants"]) == 16
    assert figures["trials"] == figures["trials_to_do"] == 16 * 2 + 2
    assert figures["answers_to_generate"] == 34 * (8 + 6) * 2
    assert not (tmp_path / "results").exists()
    assert "34 of 34 to do" in cli("run", *arguments, "--dry-run").stdout


def test_doctor_names_backend_device_and_suites(cli: Cli) -> None:
    output = cli("doctor", check=None).stdout
    assert "answers are generated with" in output
    assert "torch 2" in output
    assert "suites: dolly-tiny, instruct" in output


def test_doctor_says_how_to_mend_a_torchvision_built_for_another_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "0.28.0")
    broken = (False, "RuntimeError: operator torchvision::nms does not exist")
    monkeypatch.setattr(doctor, "_python", lambda code: broken)
    finding = doctor._add_ons()[0]
    assert "torchvision::nms does not exist" in finding.what
    assert "pip uninstall -y torchvision" in str(finding.remedy)
