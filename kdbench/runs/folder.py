"""Where the files of a run lie: `results/<name>/`, and in it a folder a trial."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.base.store import read_json
from kdbench.base.strict_yaml import read_yaml, validated
from kdbench.config.identity import SPEC_VERSION, Done, RunSpec, TrialSpec, problem
from kdbench.runs.provenance import Provenance, read_provenance

STUDY = "study.yaml"
"""In the folder of a study, which holds runs and is none."""


@dataclass(frozen=True)
class TrialFiles:
    """The files of one trial (variant, training seed, initial student) of a run."""

    path: Path

    @property
    def is_claimed(self) -> bool:
        """Whether a command has written spec.json."""
        return (self.path / "spec.json").exists()

    @property
    def is_begun(self) -> bool:
        """Whether something of the trial has been run."""
        made = ("DONE.json", "train.jsonl", "checkpoint.safetensors", "generations", "model")
        return any((self.path / name).exists() for name in made)

    @property
    def spec(self) -> TrialSpec:
        """What identifies the trial, from its spec.json.

        Raises:
            UserError: the file is not what a run wrote.
        """
        path = self.path / "spec.json"
        try:
            return validated(TrialSpec, read_json(path))
        except ValidationError as error:
            raise UserError(
                f"{path}: not the spec of a trial ({problem(error)}); delete the trial's folder to "
                "run it again"
            ) from error

    @property
    def done(self) -> Done | None:
        """How the trial ended, or None while it has not.

        Raises:
            UserError: the file is not what a run wrote.
        """
        path = self.path / "DONE.json"
        try:
            return validated(Done, read_json(path)) if path.exists() else None
        except ValidationError as error:
            raise UserError(
                f"{path}: does not say how a trial ended ({problem(error)}); delete the trial's "
                "folder to run it again"
            ) from error

    @property
    def train_log(self) -> Path:
        """One JSON object a training step."""
        return self.path / "train.jsonl"

    @property
    def model(self) -> Path:
        """The distilled student, in the layout transformers and vLLM load."""
        return self.path / "model"

    @property
    def trained(self) -> Path:
        """How training ended; written when `model` is complete."""
        return self.path / "trained.json"

    @property
    def scores_path(self) -> Path:
        """One row per (set, sample, decoding seed, metric)."""
        return self.path / "scores.parquet"

    def generations(self, set_name: str, greedy: bool = False) -> Path:
        """The answers to one evaluation set under one decoding."""
        return self.path / "generations" / f"{set_name}{'.greedy' if greedy else ''}.jsonl"


@dataclass(frozen=True)
class Run:
    """A run's folder, `results/<name>/`."""

    path: Path

    @property
    def is_begun(self) -> bool:
        """Whether a command has written spec.yaml."""
        return (self.path / "spec.yaml").exists()

    @property
    def spec(self) -> RunSpec:
        """What identifies the run, from its spec.yaml.

        Raises:
            UserError: the file is missing, or not what this version of kdbench writes.
        """
        path = self.path / "spec.yaml"
        if not path.exists():
            raise UserError(f"{path}: missing, so the settings of the run are not known")
        return _run_spec(path, path.read_bytes())

    @property
    def provenance(self) -> Provenance:
        """Where the run's numbers come from, from its provenance.json.

        Raises:
            UserError: the file is not what a run wrote.
        """
        return read_provenance(self.path / "provenance.json")

    def trial(self, slug: str, seed: int, init_seed: int = 0) -> TrialFiles:
        """The files of one trial, whether or not they exist yet."""
        name = f"seed-{seed}.init-{init_seed}" if init_seed else f"seed-{seed}"
        return TrialFiles(self.path / "trials" / slug / name)

    def trials(self) -> list[TrialFiles]:
        """The trials that have been started, in the order of their paths."""
        return [TrialFiles(p.parent) for p in sorted(self.path.glob("trials/*/seed-*/spec.json"))]

    def finished(self) -> list[TrialFiles]:
        """The trials that have ended and been scored, in the order of their paths."""
        return [trial for trial in self.trials() if trial.done and trial.scores_path.exists()]


def find_run(name: str, out: Path) -> Run:
    """A run by its name below `out`, or by the path of its folder.

    Raises:
        UserError: there is none of that name, or a study; the message lists those there are.
    """
    for path in (out / name, Path(name)):
        if (path / "spec.yaml").exists():
            return Run(path)
        if (path / STUDY).exists():
            runs = [f"{name}/{own.parent.name}" for own in sorted(path.glob("*/spec.yaml"))]
            raise UserError(f"{path} is a study; its runs are: {', '.join(runs) or 'none yet'}")
    known = sorted(path.parent.name for path in out.glob("*/spec.yaml"))
    raise UserError(f"no run '{name}' in {out}; there are: {', '.join(known) or 'none'}")


@lru_cache(maxsize=8)
def _run_spec(path: Path, content: bytes) -> RunSpec:
    """The spec that a file holds; one content is parsed once."""
    try:
        tree, _ = read_yaml(content.decode("utf-8"), str(path))
        version = tree["shared"]["version"]
    except (UserError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise UserError(
            f"{path}: not the spec of a run; restore it, or use another --name"
        ) from error
    if version != SPEC_VERSION:
        raise UserError(
            f"{path}: another version of kdbench wrote it (spec version {version}, here "
            f"{SPEC_VERSION}); use that version for it, and another --name here"
        )
    try:
        return validated(RunSpec, tree)
    except ValidationError as error:
        raise UserError(
            f"{path}: not the spec of a run ({problem(error)}); restore it, or use another --name"
        ) from error
