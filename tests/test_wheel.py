"""What is installed is one import package that works outside the checkout."""

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import MICRO_SUITE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; of a copy, since setuptools builds beside the sources."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("kdbench", "objectives", "suites"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ("wheel", "-q", "--no-deps", "-w", str(folder), str(source))
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_every_folder_with_code_is_a_package_of_the_wheel() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        ("" if top == "kdbench" else "kdbench.") + ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("kdbench", "objectives", "suites")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(setuptools["packages"]) == there


def test_the_wheel_holds_one_top_level_package(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"kdbench"}


def test_the_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which sees this one's packages but not its kdbench."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    # A plain path: the editable install's own .pth file, which names the checkout, is not read.
    (packages / "others.pth").write_text(f"{ours}\n")
    python = environment / "bin" / "python"

    def kdbench(*arguments: str) -> str:
        command = [str(python), "-c", "from kdbench.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [str(python), "-c", "import kdbench.objectives.amid as m; print(m.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(packages))
    assert "forward-kl" in kdbench("objectives")
    assert "instruct" in kdbench("suites")
    (tmp_path / "micro.yaml").write_text(MICRO_SUITE)
    kdbench("run", "--suite", "micro.yaml", "--objectives", "sft", "--seeds", "1")
    assert "sft" in (tmp_path / "results" / "micro" / "leaderboard.md").read_text()


def test_a_built_in_is_registered_once_from_the_checkouts_root() -> None:
    code = "from kdbench.variants.variant import load_objectives as load; load(); import sys; "
    code += "print(sorted(name for name in sys.modules if 'amid' in name))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['kdbench.objectives.amid']\n"
