"""The commands that only tell: objectives, suites, plan, doctor."""

import json
import subprocess
from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.cli.objectives import command as objectives_command
from kdbench.cli.plan import command as plan_command
from kdbench.config.load import load_suite
from kdbench.pipeline import estimate
from tests.conftest import Cli

PLUGIN = """
from kdbench.api import divergence, kl

@divergence("mine", source="here")
def mine(teacher_logp, student_logp):
    return kl(teacher_logp, student_logp)
"""


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `kdbench objectives` prints."""
    objectives_command.main(list(arguments), standalone_mode=False)
    return capsys.readouterr().out


def test_objectives_as_json_holds_every_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    items = json.loads(cli("objectives", "--json", "--plugin", "mine.py").stdout)
    by_name = {item["name"]: item for item in items}
    assert {"sft", "forward-kl", "amid", "alpha-beta", "amid-paper", "mine"} <= set(by_name)
    assert by_name["mine"]["defined_at"].endswith("mine.py:4")
    assert by_name["amid-paper"]["kind"] == "preset"
    assert by_name["jsd"]["parameters"] == [{"name": "beta", "default": "0.5", "range": "(0, 1)"}]
    assert by_name["gkd"]["kind"] == "method"
    assert by_name["gkd"]["expression"] == "jsd[beta=0.5]@mixed"
    assert by_name["@mixed"]["kind"] == "source"


def test_objectives_lists_name_kind_parameters_and_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = told(capsys).splitlines()
    assert "| `tvd` | divergence |  | f-distill, arXiv:2307.15190 |" in lines
    (skew,) = (line for line in lines if line.startswith("| `skew-kl` |"))
    assert "`teacher_weight=0.1 in [0, 1)`" in skew
    assert "arXiv:2402.03898" in skew
    (gkd,) = (line for line in lines if line.startswith("| `gkd` | method |"))
    assert "`jsd[beta=0.5]@mixed`" in gkd
    assert any(line.startswith("| `@policy-gradient` | source |") for line in lines)


def test_one_objective_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    page = told(capsys, "skew-kl")
    for part in (
        "skew-kl  (divergence)",
        "KL(p || w p + (1 - w) q)",
        "arXiv:2402.03898",
        "teacher_weight = 0.1 in [0, 1)",
        "finite even where only one of the two probabilities is 0",
        "objectives/divergences.py:",
        '--objectives "skew-kl[teacher_weight=0.5]"',
    ):
        assert part in page
    assert "also called  kl" in told(capsys, "kl")
    assert "alpha in -5, -3, -1, -0.5, 0, 0.5, 1" in told(capsys, "amid")


def test_infinities_follow_a_variant_s_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    page = told(capsys, "skew-kl[teacher_weight=0]")
    assert "teacher_weight = 0 (by default 0.1) in [0, 1)" in page
    assert "+inf where only the student's probability is 0" in page


def test_a_method_is_told_with_its_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    item = json.loads(told(capsys, "gkd", "--json"))
    assert [parameter["name"] for parameter in item["parameters"]] == ["beta"]
    assert item["sequences"]["name"] == "@mixed"
    assert [p["default"] for p in item["sequences"]["parameters"]] == ["0.5"]


def test_a_source_is_told_with_and_without_its_sign(capsys: pytest.CaptureFixture[str]) -> None:
    page = told(capsys, "adaptive")
    assert page == told(capsys, "@adaptive")
    assert "capacity = 1000 in [1, inf)" in page
    assert '--objectives "forward-kl@adaptive[threshold=0.5]"' in page


def test_every_example_is_a_variant_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    from kdbench.variants.variant import parse

    for item in json.loads(told(capsys, "--json")):
        example = parse(item["example"])
        own = item["parameters"] and item["kind"] in ("divergence", "labelled", "stateful")
        assert not own or example != parse(item["name"]), item["name"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("skew-lk",), "did you mean skew-kl"),
        (("@mixd",), "did you mean mixed"),
        (("all",), "stands for several"),
        (("--plot", "a.png"), "kdbench objectives NAME --plot"),
        (("jsd", "--plot", "a.pdf"), "ends in .png or .svg"),
        (("@mixed", "--plot", "a.png"), "no picture of it"),
    ],
)
def test_what_cannot_be_told_is_refused(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        objectives_command.main(list(arguments), standalone_mode=False)


def test_a_plugin_is_drawn(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    cli("objectives", "mine", "--plugin", "mine.py", "--plot", "mine.png")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


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


def test_answers_of_a_larger_student_take_longer() -> None:
    """One layer more: by two operations a parameter of it, for all that it reads and writes."""
    counts = estimate.Counts(30.0, 10.0, 0, 40, exact=True)
    seconds = []
    for layers in (1, 2):
        suite = load_suite("instruct", [f"student.architecture.layers={layers}"])
        student = estimate.sizes_of(suite)[1]
        seconds.append(estimate.answer_seconds(student, counts, 10.0, speed=1e9))
    layer = 4 * 64 * 64 + 3 * 64 * 192
    assert seconds[1] - seconds[0] == pytest.approx(30 * 2 * layer / 1e9)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("dolly-gpt2",), ("at most 116,981,760 tokens", "kB of hidden states", "GB on disk")),
        (("instruct", "--tuning", "2"), ("budget     2 candidates", "then, with the first")),
        (("instruct", "--seeds", "1"), ("1 variant, 1 seed\n", "to make    initial student\n")),
    ],
    ids=["on paper", "tuning", "run"],
)
def test_a_plan_is_told_in_words(
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    lines: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    suite, *more = arguments
    asked = ["--suite", suite, "--objectives", "sft", "--backend", "transformers", *more]
    asked += ["--out", str(tmp_path)]
    plan_command.main(asked, standalone_mode=False)
    text = capsys.readouterr().out
    for line in lines:
        assert line in text
    assert "GB for one training: weights" in text
    assert "\n\n" not in text


def test_doctor_names_backend_device_and_suites(cli: Cli) -> None:
    output = cli("doctor", check=None).stdout
    assert "answers are generated with" in output
    assert "torch 2" in output
    assert "dolly-tiny, instruct\n" in output


def test_doctor_says_how_to_mend_a_torchvision_built_for_another_torch(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(words: list[str], **given: object) -> "subprocess.CompletedProcess[str]":
        error = "RuntimeError: operator torchvision::nms does not exist"
        return subprocess.CompletedProcess(words, 1, "", error)

    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.28.0")
    monkeypatch.setattr("subprocess.run", broken)
    said = cli("doctor", check=None).stdout
    assert "torchvision 0.28.0 does not fit this torch: RuntimeError: operator torchvision" in said
    assert "pip uninstall -y torchvision" in said
