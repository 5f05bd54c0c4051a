"""What bad input gets: exit code 2, one message, no traceback, nothing written, within seconds."""

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.base import store
from kdbench.cli import main
from tests.conftest import MICRO_SUITE, Cli

RUN = ("run", "--suite", "micro.yaml", "--backend", "transformers")

Refused = Callable[..., str]


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Refused:
    """Runs a command that has to be refused, and returns its message."""

    def run(*arguments: str) -> str:
        message = cli(*arguments, check=2).stderr
        assert message.startswith(("Error: ", "Usage: "))
        assert not (tmp_path / "results").exists()
        return message

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objectives", "forward-kll"], "did you mean forward-kl"),
        (["--objectives", "skew-kl[teacher_wait=0.1]"], "did you mean teacher_weight?"),
        (["--objectives", "skew-kl[teacher_weight=1.5]"], "outside its range [0, 1)"),
        (["--objectives", "skew-kl[teacher_weight=much]"], "is not a number"),
        (["--objectives", "amid[teacher_weight=0,order=qr]"], "is always 0"),
        (["--objectives", "amid[divergence=sft]"], "only plain divergences can"),
        (["--objectives", "jsd[beta=0.5"], "brackets do not match"),
        (["--objectives", "zzz*"], "no objective matches"),
        (["--objectives", ","], "no objectives given"),
        (["--seeds", "0"], "at least one training seed"),
        (["--set", "recipe.lrr=1"], "did you mean lr"),
        (["--set", "recipe.lr=-1"], "--set recipe.lr=-1: recipe.lr"),
        (["--set", "recipe.lr"], "write field=value"),
        (["--set", "recipe.lr=[1"], "recipe.lr=[1: not YAML"),
        (["--set", "recipe.lr=.inf"], "recipe.lr"),
        (["--set", "recipe.betas=[2, 3]"], "recipe.betas"),
        (["--set", "decoding.seeds=[1, 1]"], "seeds have to differ"),
        (
            ["--set", "decoding.seeds=1,2"],
            "a list stands in brackets: [1,2] (--set 'decoding.seeds",
        ),
        (["--set", "decoding.seeds=1"], "a list stands in brackets: [1]"),
        (["--set", "recipe.lr="], "this field is missing"),
        (["--set", "student.architecture.heads=3"], "width / heads"),
        (["--set", "loss.kd=0"], "nothing to minimise"),
        (["--set", "teacher={path: x}"], "bring their own tokenizer"),
        (["--set", "data.evaluation.average={path: x}"], "cannot name a set"),
        (["--name", "../elsewhere"], "a run's name is"),
        (["--name", "boards"], "a run's name is"),
        (["--set", "data.evaluation.doly={path: x}"], "no such file"),
        (["--plugin", "absent.py"], "no such file"),
        (["--data-dir", "absent"], "no such folder"),
        (["--suite", "instruckt"], "did you mean instruct"),
        (["--suite", "absent.yaml"], "no such file"),
    ],
)
def test_bad_flag_is_refused_with_what_to_do(
    micro: Path, refused: Refused, arguments: list[str], message: str
) -> None:
    assert message in refused(*RUN, *arguments)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipe:", "recpe:", "micro.yaml:20: recpe: unknown field 'recpe'; did you mean recipe"),
        ("limit: 48", "limt: 48", "micro.yaml:6: data.train.limt: unknown field 'limt'"),
        ("steps: 12", "steps: none", "micro.yaml:20: recipe.steps"),
        ("dolly.jsonl", "absent.jsonl", "absent.jsonl: no such file"),
        ("vocabulary: 512", "vocabulary: 12", "micro.yaml:13: tokenizer.vocabulary"),
        ("{path: dev.jsonl, limit: 12}", "{path: dev.jsonl", "not YAML"),
    ],
)
def test_bad_suite_is_refused_with_file_line_and_field(
    refused: Refused, tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE.replace(old, new))
    assert message in refused(*RUN)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"instruction": "x"', "own.jsonl:3: not a JSON object"),
        (b'{"instruction": "x"}', "own.jsonl:3: the field 'output' is missing"),
        (b'{"instruction": "\xff", "output": "y"}', "own.jsonl:3: not a JSON object in UTF-8"),
    ],
)
def test_broken_record_is_refused_with_file_and_line(
    refused: Refused, tmp_path: Path, line: bytes, message: str
) -> None:
    good = b'{"instruction": "x", "output": "y"}\n'
    (tmp_path / "own.jsonl").write_bytes(2 * good + line + b"\n")
    suite = MICRO_SUITE.replace("  generator: kdbench.suites.instruct:generate\n", "")
    suite = re.sub(r"path: \w+\.jsonl", "path: own.jsonl", suite)
    (tmp_path / "micro.yaml").write_text(suite)
    assert message in refused(*RUN)


def test_suite_that_is_not_utf8_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "micro.yaml").write_bytes(b"name: \xff\n")
    assert "micro.yaml: not text in UTF-8" in refused(*RUN)


def test_out_that_is_a_file_is_refused(micro: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    assert "afile" in refused(*RUN, "--objectives", "sft", "--out", "afile")


def test_head_dimension_that_vllm_cannot_serve_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE.replace("width: 32", "width: 24"))
    message = refused("run", "--suite", "micro.yaml", "--backend", "vllm")
    assert "student: head dimension 24" in message


def checkpoint(folder: Path, tokens: dict[str, int]) -> None:
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "vocab_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    model = {"type": "WordLevel", "vocab": tokens, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))


def test_models_with_different_tokenizers_are_refused(refused: Refused, tmp_path: Path) -> None:
    checkpoint(tmp_path / "big", {"a": 0, "b": 1})
    checkpoint(tmp_path / "small", {"a": 0})
    lines = MICRO_SUITE.splitlines()
    start = lines.index("teacher:")
    lines[start : start + 6] = ["teacher: {path: big}", "student: {path: small}"]
    lines.remove("tokenizer: {vocabulary: 512, frame_tokens: true}")
    (tmp_path / "micro.yaml").write_text("\n".join(lines))
    assert "different tokenizers" in refused(*RUN)


def test_plugin_that_raises_is_one_message_with_file_and_line(
    micro: Path, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import math\n\nmath.sqrt(-1)\n")
    message = refused(*RUN, "--plugin", "broken.py")
    assert "broken.py:3: ValueError: " in message


def test_unknown_command_and_run_are_refused(refused: Refused) -> None:
    assert "did you mean report" in refused("reprot")
    assert "no run 'absent'" in refused("report", "absent")


def test_a_refusal_is_one_message_without_the_heavy_imports(micro: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom kdbench.cli import main\n"
        "for flags in (['--set', 'recipe.lr=x'], ['--objectives', 'nothing']):\n"
        "    try:\n        main(['run', '--suite', 'micro.yaml', *flags])\n"
        "    except SystemExit as stop:\n        assert stop.code == 2\n"
        "print({'transformers', 'vllm', 'datasets', 'pandas', 'seaborn'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
    assert done.stderr.count("Error: ") == 2
    assert "Error: unknown objective 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_message(micro: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(store, "write_bytes", full)
    assert "No space left on device" in cli(*RUN, "--objectives", "sft", check=2).stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_plan_refuses_what_the_run_would_refuse(
    command: str, micro: Path, refused: Refused, tmp_path: Path
) -> None:
    """A finished trial whose objective has been changed since."""
    from kdbench.pipeline.trial import Trial
    from kdbench.variants.variant import parse

    old = Trial(parse("sft")).spec.model_copy(update={"code": "0" * 12}).model_dump(mode="json")
    store.write_json(tmp_path / "runs/micro/trials/sft/seed-0/spec.json", old)
    arguments = ("--suite", "micro.yaml", "--objectives", "sft", "--out", "runs")
    message = refused(command, *arguments, *(["--dry-run"] if command == "run" else []))
    assert "made by another definition of sft" in message


def test_an_interrupt_while_a_command_plans_is_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdbench.cli.importlib.import_module", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["plan"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
