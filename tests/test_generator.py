"""What a suite's `generator` may call: functions of its package, and of files that a user named."""

import json
from pathlib import Path

import pytest

from tests.conftest import MICRO_SUITE, Cli

OWN = """
import json
from os import system

def make(folder, *, seed):
    row = json.dumps({"instruction": f"Say {seed}.", "output": "word"})
    for name in ("teacher", "train", "dev", "dolly", "vicuna"):
        (folder / f"{name}.jsonl").write_text(row + chr(10))
"""


@pytest.mark.parametrize(
    "generator",
    [
        "os:system",
        "shutil:rmtree",
        "os.path:exists",
        "subprocess:run",
        "builtins:exec",
        "kdbench.base.store:write_text",
        "kdbench.suites_of_mine:make",
        "own:make",
        "evil",
        ":system",
        "kdbench.suites.instruct:Path",
        "kdbench.suites.instruct:os.system",
        "kdbench.suites.instruct:absent",
        "kdbench.suites.absent:make",
        "kdbench.suites.instruct:",
    ],
)
@pytest.mark.parametrize("command", [("data", "pull"), ("data", "check"), ("cut",)])
def test_nothing_else_is_imported_or_called(
    cli: Cli, tmp_path: Path, generator: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "own.py").write_text(f"from pathlib import Path\nPath('called').touch()\n{OWN}")
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('called').touch()\n")
    suite = MICRO_SUITE.replace("kdbench.suites.instruct:generate", f"'{generator}'")
    (tmp_path / "micro.yaml").write_text(suite)
    said = cli(*command, "micro.yaml", check=2).stderr
    assert said.startswith("Error: ")
    assert "kdbench.suites" in said
    assert not (tmp_path / "called").exists()


def test_a_file_named_with_plugin_makes_the_records(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.py").write_text(OWN)
    suite = MICRO_SUITE.replace("kdbench.suites.instruct:generate", "own:make")
    (tmp_path / "micro.yaml").write_text(suite)
    shown = cli("data", "pull", "micro.yaml", "--plugin", "own.py").stdout
    made = Path(shown.splitlines()[0]) / "train.jsonl"
    assert json.loads(made.read_text())["instruction"] == "Say 0."
    assert "1 rows" in cli("data", "check", "micro.yaml", "--plugin", "own.py").stdout
    setting = ("--set", "data.generator=own:system")  # imported there, not the file's own
    said = cli("data", "pull", "micro.yaml", *setting, "--plugin", "own.py", check=2).stderr
    assert "own defines no such function" in said
