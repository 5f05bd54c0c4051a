"""The README's promises, followed to the letter."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kdbench.config.schema import Suite
from tests.conftest import Cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def plugin_block() -> str:
    """The first python block that imports kdbench.api and defines a function."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return next(b for b in blocks if "kdbench.api" in b and re.search(r"^def ", b, re.MULTILINE))


def test_an_objective_takes_at_most_fifteen_lines() -> None:
    assert len([line for line in plugin_block().splitlines() if line.strip()]) <= 15


def test_the_readmes_objective_is_a_plugin(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_loss.py").write_text(plugin_block())
    known = {item["name"] for item in json.loads(cli("objectives", "--json").stdout)}
    listed = json.loads(cli("objectives", "--json", "--plugin", "my_loss.py").stdout)
    new = [item["name"] for item in listed if item["name"] not in known]
    assert len(new) == 1
    assert f"--objectives {new[0]}" in README.read_text() or new[0] in README.read_text()


@pytest.mark.slow
def test_the_readmes_objective_runs(micro: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_loss.py").write_text(plugin_block())
    name = re.search(r'@\w+\(\s*"([a-z0-9-]+)"', plugin_block())
    assert name is not None
    arguments = ("--objectives", name[1], "--plugin", "my_loss.py", "--seeds", "1")
    cli("run", "--suite", "micro.yaml", "--backend", "transformers", *arguments)
    board = (tmp_path / "results/micro/leaderboard.csv").read_text()
    assert f"\n{name[1]}," in board


def test_the_two_commands_come_first() -> None:
    commands = re.findall(r"^\s*(make \w+)", README.read_text(), flags=re.MULTILINE)
    assert commands[:2] == ["make run", "make test"]


def test_it_is_short() -> None:
    assert len(README.read_bytes()) <= 10_000


def test_the_readmes_suite_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert Suite.model_validate(yaml.safe_load(block)).student.path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "results/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    """The strict build of the site checks those of docs/."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
