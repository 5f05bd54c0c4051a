"""`kdbench new-objective`: what it writes works as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.api import objective
from kdbench.authoring.conformance import check
from kdbench.cli.new_objective import command
from kdbench.variants.select import load_plugin
from tests.conftest import Cli
from tests.objective_tools import spoiled_registry

KINDS = ("divergence", "labelled", "stateful")
LONGEST = "a-name-of-two-and-thirty-letters"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one objective of each kind, and one whose name is as long as can be."""
    folder = tmp_path_factory.mktemp("written")
    for name, kind in (*((f"my-{kind}", kind) for kind in KINDS), (LONGEST, "labelled")):
        command.main([name, "--kind", kind, "--dir", str(folder)], standalone_mode=False)
    return folder


def run(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_the_tests_that_it_writes_pass(written: Path) -> None:
    result = run(sys.executable, "-m", "pytest", "-q", "-k", "my_", folder=written)
    assert "7 passed" in result.stdout


def test_the_test_that_it_writes_notices_another_formula(written: Path, tmp_path: Path) -> None:
    text = (written / "my_labelled.py").read_text()
    (tmp_path / "my_labelled.py").write_text(text.replace("label_weight * surprise", "surprise"))
    shutil.copy(written / "test_my_labelled.py", tmp_path)
    result = run(sys.executable, "-m", "pytest", "-q", "-k", "value", folder=tmp_path)
    assert "1 failed" in result.stdout


def test_the_files_are_clean(written: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or "ruff"
    config = ("--config", str(ROOT / "pyproject.toml"))
    for words in (("check",), ("format", "--check")):
        result = run(ruff, *words, *config, ".", folder=written)
        assert result.returncode == 0, result.stdout


def test_the_next_commands_are_said_and_find_the_objective(cli: Cli) -> None:
    said = cli("new-objective", "my-loss", "--dir", "with space").stdout
    file = "with space/my_loss.py"
    assert f"kdbench check '{file}'" in said
    assert "pytest 'with space/test_my_loss.py'" in said
    assert f"kdbench run --plugin '{file}' --objectives my-loss,forward-kl" in said
    assert "my-loss" in cli("check", file).stdout
    arguments = ("--plugin", file, "--objectives", "my-loss,forward-kl")
    assert "my-loss" in cli("plan", *arguments, "--backend", "transformers", "--json").stdout


def test_the_guides_stateful_objective_conforms(tmp_path: Path) -> None:
    guide = (ROOT / "docs/add-an-objective.md").read_text()
    (block,) = re.findall(r"```python\n([^`]*@stateful.*?)```", guide, re.DOTALL)
    (tmp_path / "turning.py").write_text(block)
    with spoiled_registry():
        load_plugin(tmp_path / "turning.py")
        failed = [finding for finding in check(objective("turning")) if not finding.ok]
    assert not failed


def test_a_file_that_exists_is_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    for name, file in (("mine", "mine.py"), ("yours", "test_yours.py")):
        (tmp_path / file).write_text("precious")
        assert f"{file} exists" in cli("new-objective", name, check=2).stderr
    there = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert there == dict.fromkeys(("mine.py", "test_yours.py"), "precious")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kl", r"taken by .*divergences\.py:\d+"),
        ("gkd", r"taken by .*methods\.py:\d+"),
        ("amid-paper", r"taken by .*amid\.py:\d+"),
        ("My_Loss", "lower-case words joined by '-'"),
        (f"{LONGEST}s", "at most 32 characters"),
        ("core", "means something else"),
        ("mixed", "means something else"),
        ("random", "Python or kdbench has a random of its own"),
        ("lambda", "Python or kdbench has a lambda of its own"),
        ("divergence", "Python or kdbench has a divergence of its own"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, reason: str, cli: Cli, tmp_path: Path) -> None:
    assert re.search(reason, cli("new-objective", name, check=2).stderr)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_the_built_in_objectives_is_refused(cli: Cli) -> None:
    folder = ROOT / "objectives"
    said = cli("new-objective", "my-loss", "--dir", str(folder), check=2).stderr
    assert "a test is none" in said
    assert not (folder / "my_loss.py").exists()
