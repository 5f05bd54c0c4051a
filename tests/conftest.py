"""Fixtures that several test files share: a suite of seconds, and the real command line."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from kdbench.cli import main
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.plan import Plan, Request, make_plan
from kdbench.runs.archive import ARCHIVE, pack
from kdbench.runs.folder import Run
from tests.board_runs import PlanIn, finish
from tests.objective_tools import spoiled_registry

settings.register_profile("kdbench", deadline=None)  # a busy machine is no failure
settings.load_profile("kdbench")

KDBENCH = [sys.executable, "-c", "import sys; from kdbench.cli import main; main(sys.argv[1:])"]

DATA_DIR = Path(os.environ.get("KDBENCH_DATA_DIR", Path(__file__).parents[2] / "shared/data"))
"""Below which the real records lie, where they are here; tests that read them skip elsewhere."""

MICRO_SUITE = """\
name: micro
description: a few words, to test the machinery
data:
  generator: kdbench.suites.instruct:generate
  teacher: {path: teacher.jsonl, limit: 200}
  train: {path: train.jsonl, limit: 48}
  dev: {path: dev.jsonl, limit: 12}
  evaluation:
    dolly: {path: dolly.jsonl, limit: 8}
    vicuna: {path: vicuna.jsonl, limit: 6}
  max_prompt: 96
  max_length: 128
tokenizer: {vocabulary: 512, frame_tokens: true}
teacher:
  architecture: {width: 64, layers: 1, heads: 2, mlp: 128, init_std: 0.06}
  fit: {steps: 40, batch: 16, lr: 0.004, warmup: 5}
student:
  architecture: {width: 32, layers: 1, heads: 1, mlp: 64, init_std: 0.06}
  fit: {steps: 20, batch: 16, lr: 0.004, warmup: 5}
recipe: {steps: 12, batch: 16, lr: 0.003, warmup: 2}
decoding: {max_new_tokens: 8, seeds: [10]}
diagnostics: {every: 4, rows: 8}
seeds: 2
"""

ANSWERS_VERSION = "tests"
"""Of the backend that made the teacher's answers of the `artifacts` fixture."""

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the session: the micro suite's teacher is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def artifacts(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """The micro suite with its teacher, initial student, and the teacher's caches made."""
    from kdbench.config.identity import Shared
    from kdbench.config.load import load_suite
    from kdbench.data.files import locate
    from kdbench.pipeline import build

    path = tmp_path_factory.mktemp("suite") / "micro.yaml"
    path.write_text(MICRO_SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDBENCH_CACHE", str(cache))
        suite = load_suite(str(path))
        made = Artifacts(suite, locate(suite, None))
        build.prepare(made)
        for role in ("teacher", "student"):
            build.make_model(made, role, 0, 16, lambda _: None)  # type: ignore[arg-type]
        build.cache_teacher(made)
        shared = Shared(
            suite=suite,
            data_digest=made.data_key,
            backend="transformers",
            backend_version=ANSWERS_VERSION,
            dtype="float32",
        )
        build.answer_with_teacher(made, shared)
        build.cache_answers(made, shared)
    return made


@pytest.fixture(scope="session")
def page_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with answers, prompts and all its reports, for reading."""
    from kdbench.report.write import write_report
    from tests.page_run import write_page_run

    run = write_page_run(tmp_path_factory.mktemp("runs") / "toy")
    write_report(run)
    return run


@pytest.fixture(autouse=True)
def _use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def own_registry() -> Iterator[None]:
    """What the test registers is forgotten afterwards."""
    with spoiled_registry():
        yield


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    """The micro suite's YAML file in a folder of the test's own."""
    path = tmp_path / "micro.yaml"
    path.write_text(MICRO_SUITE)
    return path


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs the command line in this process, in the test's folder.

    A command starts as in a process of its own, without plugins and with empty caches, and leaves
    none of its own behind. What its workers print is not among what is returned.
    """

    def run(*arguments: str, check: int | None = 0) -> "subprocess.CompletedProcess[str]":
        out, errors = io.StringIO(), io.StringIO()
        with (
            as_a_new_process(),
            contextlib.chdir(tmp_path),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as stop,
        ):
            main(list(arguments))
        code = int(stop.value.code or 0)
        return _checked(
            subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue()), check
        )

    return run


@pytest.fixture
def cli_process(tmp_path: Path) -> Cli:
    """Runs the command line in a process of its own, in the test's folder."""

    def run(*arguments: str, check: int | None = 0) -> "subprocess.CompletedProcess[str]":
        command = [*KDBENCH, *arguments]
        return _checked(
            subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300),
            check,
        )

    return run


def _checked(
    result: "subprocess.CompletedProcess[str]", code: int | None
) -> "subprocess.CompletedProcess[str]":
    assert code in (None, result.returncode), result.stdout + result.stderr
    return result


@contextlib.contextmanager
def as_a_new_process() -> Iterator[None]:
    """What a command changes for the whole process is as before afterwards."""
    environment = dict(os.environ)
    forget_what_was_read()
    with spoiled_registry():
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            forget_what_was_read()


def forget_what_was_read() -> None:
    """Empties every `functools.cache` of kdbench: of plugins, of digests of checkpoints."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "kdbench":
            for item in vars(module).values():
                if callable(clear := getattr(item, "cache_clear", None)):
                    clear()


@pytest.fixture
def plan_in(micro: Path, tmp_path: Path) -> PlanIn:
    """Plans of the micro suite, each with a folder of its own."""

    def make(folder: str, **changes: Any) -> Plan:
        given: dict[str, Any] = {"objectives": "sft,forward-kl", "seeds": 1} | changes
        request = Request(str(micro), out=tmp_path / folder, backend="transformers", **given)
        return make_plan(request)

    return make


@pytest.fixture
def board(plan_in: PlanIn, tmp_path: Path) -> Path:
    """A board with the trials of all rows but forward-kl."""
    plan = plan_in("there")
    finish(plan, ("teacher", "initial student", "sft"))
    folder = tmp_path / "board"
    folder.mkdir()
    for name in ("spec.yaml", "provenance.json"):
        shutil.copyfile(plan.run.path / name, folder / name)
    (folder / ARCHIVE).write_bytes(pack(plan.run))
    return folder
