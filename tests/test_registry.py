"""How objectives are found, and what is said when one is not, or is not sound."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kdbench
from kdbench.api import choice, divergence, kl, number, objective, preset
from kdbench.base.code import code_digest
from kdbench.base.errors import UserError
from kdbench.base.registry import Registry, load_entry_points, unknown
from kdbench.variants.objective import OBJECTIVES, PRESETS
from kdbench.variants.select import load_plugin

pytestmark = pytest.mark.usefixtures("own_registry")

ROOT = Path(kdbench.__file__).parent.parent
LOSS = """\
from kdbench.api import divergence, kl, number

@divergence("my-kl", source="a test", infinite_where=["student"], scale=number(1.0, "(0, inf)"))
def my_kl(teacher_logp, student_logp, *, scale):
    return scale * kl(teacher_logp, student_logp)
"""


def _plugin(folder: Path, text: str, name: str = "my_loss.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def _python(code: str, *, path: Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Runs Python with `path` in front of what is installed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_registry_knows_where_its_items_were_defined() -> None:
    registry: Registry[int] = Registry("thing")
    registry.add("one", 1, "a.py:3")
    registry.add("one", 2, "a.py:3")  # the same module, imported again
    assert (registry["one"], registry.defined_at("one"), list(registry)) == (2, "a.py:3", ["one"])
    with pytest.raises(UserError, match=r"thing 'one' is defined twice: a\.py:3 and b\.py:7"):
        registry.add("one", 3, "b.py:7")
    with pytest.raises(UserError, match=r"unknown thing 'on'; did you mean one\?"):
        registry["on"]


def test_an_unknown_name_brings_the_nearest_or_all() -> None:
    assert unknown("suite", "instrct", ["instruct", "dolly"]).endswith("did you mean instruct?")
    assert unknown("suite", "xyz", ["instruct", "dolly"]).endswith("known: dolly, instruct")


def test_a_plugin_registers_an_objective(tmp_path: Path) -> None:
    path = _plugin(tmp_path, LOSS)
    load_plugin(path)
    assert objective("my-kl[scale=2]").name == "my-kl[scale=2]"
    assert OBJECTIVES.defined_at("my-kl") == f"{path}:3"


def test_a_plugin_may_register_a_preset_alone(tmp_path: Path) -> None:
    line = 'preset("jsd-nine", "jsd[beta=0.9]", source="a test")'
    path = _plugin(tmp_path, f"from kdbench.api import preset\n{line}\n")
    load_plugin(path)
    assert str(objective("jsd-nine")) == "jsd[beta=0.9]"
    assert PRESETS.defined_at("jsd-nine") == f"{path}:2"


DECLARED = """\
from kdbench.api import *

@divergence({})
def f(p, q, **given):
    return p
"""
RAISES = [
    ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
    ("import torch\n\ntorch.zeros(2) @ torch.zeros(3)\n", 3, "RuntimeError"),
    ("import no_such_module\n", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
    ("def f(:\n    pass\n", 1, "SyntaxError"),
    ("def f():\n    raise OSError('disk')\n\nf()\n", 2, "OSError: disk"),
    ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
    ("raise SystemExit(3)\n", 1, "SystemExit: 3"),
]
DECLARATIONS = [
    ('"Bad Name", source="x"', "'Bad Name' cannot be an objective's name"),
    ('"teacher", source="x"', "'teacher' cannot be an objective's name"),
    ('"initial-student", source="x"', "'initial-student' cannot be an objective's name"),
    ('"all", source="x"', "not one of all, core, more, methods, teacher, init"),
    ('"good", source="x", scale=[1]', "not [1]"),
    ('"good", source="x", scale=number(2, "[0, 1]")', "default of 2.0 is outside its range"),
    ('"good", source="x", scale=number(0.5, "0 to 1")', "'0 to 1' is not an interval"),
    ('"good"', "missing 1 required keyword-only argument: 'source'"),
    ('"good", source="x", aliases=["jsd"]', "objective 'jsd' is defined twice"),
]
TAKEN_NAMES = ("jsd", "kl", "amid-paper")
TAKEN = r"objective '{}' is defined twice: \S*objectives/\w+\.py:\d+ and PATH:3; rename one of them"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (None, "PATH: no such file"),
        ("x = 1\n", "PATH registers no objective; decorate a function with @divergence"),
        *((text, f"PATH:{line}: .*{re.escape(words)}") for text, line, words in RAISES),
        *(
            (DECLARED.format(declaration), f"PATH:3: .*{re.escape(words)}")
            for declaration, words in DECLARATIONS
        ),
        *(
            (LOSS.replace("my-kl", name), TAKEN.format(name))
            for name in ("jsd", "kl", "amid-paper")
        ),
    ],
)
def test_a_plugin_that_fails_is_refused_with_its_line(
    tmp_path: Path, text: str | None, pattern: str
) -> None:
    path = tmp_path / "my_los.py" if text is None else _plugin(tmp_path, text)
    with pytest.raises(UserError, match=pattern.replace("PATH", re.escape(str(path)))) as caught:
        load_plugin(path)
    assert "Traceback" not in str(caught.value)


def test_a_preset_cannot_take_an_objectives_name() -> None:
    with pytest.raises(UserError, match="objective 'jsd' is defined twice"):
        preset("jsd", "jsd[beta=0.9]", source="a test")
    assert "jsd" not in PRESETS


def test_the_function_gets_resolved_parameters() -> None:
    seen = {}

    @divergence("seen", source="a test", scale=2, on=True, side=choice("p", "q"), of=number(1.0))
    def function(p: object, q: object, **given: object) -> object:
        seen.update(given)
        return kl(p, q)  # type: ignore[arg-type]

    import torch

    objective("seen[side=q]")(torch.zeros(1, 1), torch.zeros(1, 1))
    assert seen == {"scale": 2.0, "on": True, "side": "q", "of": 1.0}


def test_a_labelled_objective_needs_labels() -> None:
    import torch

    with pytest.raises(UserError, match="sft needs labels=, the token ids"):
        objective("sft")(torch.zeros(1, 2), torch.zeros(1, 2))


def test_plugins_of_one_file_name_are_two_modules(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        text = LOSS.replace("my-kl", f"my-kl-{place}")
        load_plugin(_plugin(tmp_path / place, text))
    modules = {OBJECTIVES[f"my-kl-{place}"].function.__module__ for place in ("a", "b")}
    assert len(modules) == 2


def test_the_code_digest_ignores_comments_and_docstrings(tmp_path: Path) -> None:
    path = _plugin(tmp_path, LOSS)
    load_plugin(path)
    digest = OBJECTIVES["my-kl"].code
    path.write_text("# A comment.\n" + LOSS.replace("    return", '    """Scaled."""\n    return'))
    assert code_digest(path) == digest
    path.write_text(LOSS.replace("scale * kl", "2 * scale * kl"))
    assert code_digest(path) != digest
    assert OBJECTIVES["my-kl"].code == digest  # what was loaded


def _distribution(folder: Path, value: str) -> None:
    info = folder / "my_losses-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kdbench.objectives]\nmine = {value}\n")


@pytest.mark.parametrize("files", [["m.py"], ["m/__init__.py", "m/first.py", "m/second.py"]])
def test_an_entry_point_names_a_module_or_a_package_of_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    package = f"losses_of_mine_{len(files)}"
    _distribution(tmp_path, package)
    (tmp_path / package).mkdir()
    for place, file in enumerate(files):
        loss = LOSS.replace("my-kl", f"my-kl-{place}")
        _plugin(tmp_path, loss, f"{package}{file[1:]}")
    monkeypatch.syspath_prepend(tmp_path)
    load_entry_points("kdbench.objectives")
    assert {"my-kl-0", f"my-kl-{len(files) - 1}", "jsd"} <= set(OBJECTIVES)
    assert OBJECTIVES.defined_at("my-kl-0") == f"{tmp_path}/{package}{files[0][1:]}:3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_losses'"),
        ("x = 1\n1 / 0\n", "broken_losses.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "broken_losses.py:1: SystemExit: 3"),
    ],
)
def test_an_entry_point_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    _distribution(tmp_path, "broken_losses")
    if text is not None:
        _plugin(tmp_path, text, "broken_losses.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        load_entry_points("kdbench.objectives")
    assert words in str(caught.value)
    assert "broken_losses could not be imported" in str(caught.value)


def test_a_file_dropped_into_objectives_is_found(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kdbench", tmp_path / "kdbench", ignore=ignore)
    inside = tmp_path / "kdbench" / "objectives"  # as the wheel installs it
    shutil.copytree(ROOT / "objectives", inside, ignore=ignore)
    path = _plugin(inside, LOSS)
    code = """
        from kdbench.variants.select import OBJECTIVES, expand
        print("my-kl" in map(str, expand("all")), OBJECTIVES.defined_at("my-kl"))
    """
    result = _python(code, path=tmp_path, cwd=tmp_path)
    assert result.stdout == f"True {path}:3\n", result.stderr


def test_a_refusal_needs_no_heavy_imports(tmp_path: Path) -> None:
    code = """
        import sys
        from kdbench.base.errors import UserError
        from kdbench.variants.select import expand
        for text in ("foward-kl", "jsd[beta=2]", "amid[divergence=sft]", "jsd[beta"):
            try:
                expand(text)
            except UserError:
                print("refused")
        print({"transformers", "vllm", "datasets", "pandas"} & set(sys.modules) or "none")
    """
    result = _python(code, path=tmp_path, cwd=tmp_path)
    assert result.stdout.splitlines() == ["refused"] * 4 + ["none"], result.stderr


def _first_block(text: str) -> str:
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


GUIDE = (ROOT / "docs" / "add-an-objective.md").read_text()


def test_the_guides_objective_is_short_and_conforms(tmp_path: Path) -> None:
    from kdbench.authoring.conformance import check

    text = _first_block(GUIDE)
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 15
    load_plugin(_plugin(tmp_path, text))
    for setting in ("renyi", "renyi[order=0.9]", "renyi[order=0.1]", "amid[divergence=renyi]"):
        failed = [finding for finding in check(objective(setting)) if not finding.ok]
        assert not failed


def test_the_guides_check_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_first_block(GUIDE.partition("## What it is held to")[2]), "guide", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith("ok  ") for line in lines)
