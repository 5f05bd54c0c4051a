"""Identity holds code: of an objective and what it imports, and of the rooms that move numbers."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

import kdbench
from kdbench.base import code
from kdbench.base.code import code_digest, rooms_digest
from kdbench.base.errors import UserError
from kdbench.base.store import read_json, write_json
from kdbench.pipeline.plan import Plan, Request, check_trials, make_plan
from kdbench.pipeline.run import run
from kdbench.pipeline.trial import claim
from kdbench.report.notes import notes
from kdbench.report.table import build_board
from kdbench.runs import provenance
from kdbench.runs.folder import Run
from tests.synthetic_run import SETS, Variant, write_spec, write_trial

PLUGIN = """\
{imports}
from kdbench.api import divergence

@divergence("zz-own", source="a test")
def own(teacher_logp, student_logp):
    {inside}
    return (teacher_logp.exp() * (teacher_logp - student_logp)).sum(-1)
"""


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("imports", "inside"),
    [
        ("import zza", "pass"),
        ("from zza import f as g", "pass"),
        ("from zzp import inner", "pass"),
        ("import zzp.inner", "pass"),
        ("", "from zzp.inner import h"),
        ("import importlib; m = importlib.import_module('zza')", "pass"),
    ],
)
def test_a_digest_holds_the_local_modules_that_are_imported(
    imports: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "plugin.py": PLUGIN.format(imports=imports, inside=inside),
        "zza.py": "import zzp.inner\n\ndef f():\n    return 1\n",
        "zzp/__init__.py": "",
        "zzp/inner.py": "from . import deep\nfrom .deep import D\n\ndef h():\n    return D\n",
        "zzp/deep.py": "D = 1\n",
        "zzother.py": "x = 1\n",
    }
    _write(tmp_path, files)
    root = tmp_path / "plugin.py"
    first = code_digest(root)
    _write(
        tmp_path, {"zzp/deep.py": '"""Says."""\n\nD  =  1  # a comment\n', "zzother.py": "y = 2"}
    )
    assert code_digest(root) == first
    _write(tmp_path, {"zzp/deep.py": "D = 2\n"})
    assert code_digest(root) != first
    _write(tmp_path, {"zzp/deep.py": "D = 1\n", "zzp/__init__.py": "import os\n"})
    assert code_digest(root) != first
    assert not {"zza", "zzp"} & set(sys.modules)  # nothing is imported for it


def test_a_digest_of_a_built_in_holds_its_neighbours_and_no_room() -> None:
    root = Path(kdbench.__file__).parent.parent / "objectives" / "amid.py"
    assert code_digest(root) == code_digest(root) != code_digest(root.with_name("__init__.py"))


def test_the_digest_of_the_rooms_ignores_comments_and_sees_every_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "kdbench"
    shutil.copytree(Path(kdbench.__file__).parent, package)
    monkeypatch.setattr(code, "_PACKAGE", package)
    here = rooms_digest()
    for room in code.ROOMS:
        path = next(path for path in sorted((package / room).glob("*.py")) if path.read_text())
        before = path.read_text()
        for added, differs in (("\n# A comment.\n", False), ("\nx_ = 1\n", True)):
            path.write_text(before + added)
            assert (rooms_digest.__wrapped__() != here) is differs, path
        path.write_text(before)


def test_kdbench_inside_somebody_elses_checkout_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    installed = tmp_path / "site-packages" / "kdbench" / "runs" / "provenance.py"
    _write(installed.parent, {installed.name: ""})
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.commit() == {"commit": None, "dirty": None}
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert provenance.commit()["commit"] is not None


@pytest.fixture
def plan_of(micro: Path, tmp_path: Path) -> Callable[..., Plan]:
    def make(**changes: object) -> Plan:
        given = {"objectives": "sft", "seeds": 1, "backend": "transformers"} | changes
        return make_plan(Request(str(micro), out=tmp_path / "results", **given))  # type: ignore[arg-type]

    return make


def _made_by(plan: Plan, place: int, rooms: str, *, done: bool) -> Path:
    """Leaves one trial of a plan as other code would have left it."""
    trial = plan.trials[place]
    claim(trial, plan.run)
    path = trial.files(plan.run).path
    spec = read_json(path / "spec.json")
    write_json(path / "spec.json", spec | {"harness": spec["harness"] | {"rooms": rooms}})
    if done:
        other = Run(plan.run.path / "other")
        write_trial(other, Variant("sft", 1.0), 0)
        write_json(path / "DONE.json", read_json(other.trial("sft", 0).path / "DONE.json"))
    else:
        (path / "train.jsonl").touch()
    return path


def test_a_run_is_not_extended_over_other_code(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    path = _made_by(plan, 0, "0ddc0de", done=True)
    message = (
        rf"trials \(1\) by other code .*{path.parent.name}/seed-0 by digest 0ddc0de .*--mix-code"
    )
    with pytest.raises(UserError, match=message):
        plan_of()
    with pytest.raises(UserError, match=message):
        plan_of(objectives="forward-kl")  # the old trial is no part of the command
    check_trials(plan_of(mix_code=True))


def test_a_trial_has_one_code_even_where_a_run_may_have_two(
    plan_of: Callable[..., Plan],
) -> None:
    plan = plan_of()
    path = _made_by(plan, -1, "0ddc0de", done=False)
    with pytest.raises(UserError, match="not finished, and a trial has one code; delete its"):
        plan_of(mix_code=True)
    (path / "train.jsonl").unlink()  # nothing has been run: it starts with the code that is here
    claim(plan.trials[-1], plan_of().run)
    written = read_json(path / "spec.json")["harness"]
    assert written == provenance.harness().model_dump()
    assert written["version"]
    assert written["rooms"] == rooms_digest()


def test_a_table_of_two_codes_says_so(tmp_path: Path) -> None:
    made = Run(tmp_path / "run")
    write_spec(made, sets=SETS)
    write_trial(made, Variant("sft", 50.0), 0)
    assert not any("MIXED CODE" in text for text in notes(build_board(made)))
    write_trial(made, Variant("forward-kl", 50.0), 0, rooms="beef")
    (text,) = [text for text in notes(build_board(made)) if text.startswith("MIXED CODE")]
    assert "2 versions" in text
    assert "`beef` (1 trial), `c0de` (1 trial)" in text


def test_a_module_edited_after_the_start_fails_its_trial_by_name(
    plan_of: Callable[..., Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_registry: None,
) -> None:
    """The worker imports the plugin anew, and the module that it imports."""
    monkeypatch.syspath_prepend(str(tmp_path))
    inside = "return zzhelper.f(teacher_logp, student_logp)"
    helper = "def f(p, q):\n    return {}(p.exp() * (p - q)).sum(-1)\n"
    _write(tmp_path, {"plugin.py": PLUGIN.format(imports="import zzhelper", inside=inside)})
    _write(tmp_path, {"zzhelper.py": helper.format("")})
    plan = plan_of(objectives="zz-own,sft", plugins=(tmp_path / "plugin.py",), jobs=1)
    _write(tmp_path, {"zzhelper.py": helper.format("2 * ")})
    (failure,) = run(plan, Mock())
    assert failure.task.name == "train zz-own seed 0"
    assert re.search(r"zz-own: its code .* was changed", failure.reason)
    done = {trial.name for trial in plan.trials if trial.files(plan.run).done is not None}
    assert done == {"teacher", "initial student", "sft"}
    (own,) = [trial for trial in plan.trials if trial.name == "zz-own"]
    assert (own.files(plan.run).path / "FAILED.json").exists()
    assert not own.files(plan.run).train_log.exists()
    del sys.modules["zzhelper"]
