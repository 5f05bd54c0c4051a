"""The stages of one trial: train -> generate -> score. Each ends in a file and can be resumed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import store
from kdbench.artifacts import Artifacts
from kdbench.errors import UserError
from kdbench.generate import GREEDY, Generator, open_generator, write_generations
from kdbench.objective import Variant
from kdbench.spec import Shared, differences
from kdbench.store import REFERENCES, Run, TrialFiles

if TYPE_CHECKING:
    from kdbench.train.job import Job


@dataclass(frozen=True)
class Trial:
    """One row of work: a variant with a training seed, or a reference model that is only scored."""

    row: str
    """The variant's full name, or `teacher` or `init`."""
    slug: str
    seed: int
    variant: Variant | None

    def files(self, run: Run) -> TrialFiles:
        """Where the trial's files lie."""
        return run.trial(self.slug, self.seed)

    def spec(self) -> dict[str, Any]:
        """What identifies the trial within its run; written to spec.json."""
        if self.variant is None:
            return {
                "variant": self.row,
                "objective": self.row,
                "params": {},
                "slug": self.slug,
                "seed": self.seed,
                "reference": True,
            }
        return {
            "variant": self.variant.name,
            "objective": self.variant.objective.name,
            "params": self.variant.plain_params(),
            "source": self.variant.plain_source(),
            "slug": self.slug,
            "seed": self.seed,
            "reference": False,
            "code": self.variant.code_digest(),
        }


def trials_of(variants: list[Variant], seeds: int) -> list[Trial]:
    """All trials of a run, seed by seed, the references first.

    Seed by seed, so that a run that is cut short has compared all objectives on fewer seeds.
    """
    references = [Trial(name, name, 0, None) for name in REFERENCES]
    return references + [
        Trial(variant.full_name, variant.slug, seed, variant)
        for seed in range(seeds)
        for variant in variants
    ]


def check_claim(trial: Trial, run: Run) -> None:
    """Checks that a trial's folder, where there is one, was made by the same definition.

    Raises:
        UserError: the folder was made by another definition of the objective.
    """
    path = trial.files(run).path / "spec.json"
    if path.exists() and (changed := differences(store.read_json(path), trial.spec())):
        raise UserError(
            f"{path.parent} was made by another definition of {trial.spec()['variant']} "
            f"({'; '.join(changed)}); delete the folder to run it again, or use another --name"
        )


def claim(trial: Trial, run: Run) -> None:
    """Writes a trial's spec.json where there is none."""
    path = trial.files(run).path / "spec.json"
    if not path.exists():
        store.write_json(path, trial.spec())


def train_trial(
    artifacts: Artifacts,
    trial: Trial,
    run: Run,
    shared: Shared,
    micro_batch: int,
    compile_objective: bool,
    progress: Any,
) -> None:
    """Distils one student."""
    from kdbench.train.loop import train

    assert trial.variant is not None
    files = trial.files(run)
    with store.locked(files.path / ".lock"):
        if files.trained.exists():
            return
        answers = artifacts.teacher_answers(shared.backend, shared.backend_version)
        job = job_of(artifacts, trial.variant, trial.seed, files.path, answers)
        job = replace(job, micro_batch=micro_batch, compile=compile_objective)
        train(job, progress)


def job_of(artifacts: Artifacts, variant: Variant, seed: int, out: Path, answers: Path) -> "Job":
    """What a trial trains: the suite's student, with all that the variant's source needs.

    Args:
        artifacts: of the suite; all of them made.
        variant: what to minimise, and on which sequences.
        seed: the training seed.
        out: gets the log, the checkpoint and the student.
        answers: the teacher's own responses, for the sources that need them.
    """
    from kdbench.train.job import Job

    suite, source = artifacts.suite, variant.source.source
    return Job(
        variant=variant,
        suite=suite.name,
        seed=seed,
        recipe=suite.recipe,
        loss=suite.loss,
        diagnostics=suite.diagnostics,
        initial=artifacts.model("init") / "model",
        train=artifacts.encoded / "train.safetensors",
        train_rows=None,
        dev=artifacts.encoded / "dev.safetensors",
        teacher=artifacts.teacher_cache,
        vocabulary=artifacts.vocabulary,
        max_new_tokens=suite.decoding.max_new_tokens,
        max_length=suite.data.max_length,
        out=out,
        micro_batch=suite.recipe.batch,
        compile=False,
        live_teacher=artifacts.model("teacher") / "model" if source.samples else None,
        answers=answers if source.teacher_answers else None,
    )


_generators: dict[str, Generator] = {}
"""The generator of this process: it serves many students one after another."""


def generate_answers(artifacts: Artifacts, trial: Trial, run: Run, shared: Shared) -> None:
    """Writes every (set, decoding) file of a student that is not there yet."""
    files, decoding = trial.files(run), artifacts.suite.decoding
    with store.locked(files.path / ".lock"):
        missing = _missing_generations(artifacts, files)
        if not missing:
            return
        if shared.backend not in _generators:
            _generators[shared.backend] = open_generator(shared.backend, artifacts.sequence_length)
        generator = _generators[shared.backend]
        generator.load(model_of(artifacts, trial, files))
        prompts = artifacts.prompts()
        for name, greedy in missing:
            write_generations(
                generator,
                prompts[name],
                files.generations(name, greedy),
                set_name=name,
                temperature=0.0 if greedy else decoding.temperature,
                top_p=1.0 if greedy else decoding.top_p,
                max_new_tokens=decoding.max_new_tokens,
                decoding_seeds=(GREEDY,) if greedy else decoding.seeds,
            )


def score_answers(artifacts: Artifacts, trial: Trial, run: Run) -> None:
    """Scores a student's answers and marks the trial as done."""
    from kdbench.score import score_trial

    files = trial.files(run)
    with store.locked(files.path / ".lock"):
        if not files.scores_path.exists():
            score_trial(files, artifacts.references())
        source = files.trained
        if trial.variant is None:
            source = (
                artifacts.model("teacher" if trial.row == "teacher" else "init") / "trained.json"
            )
        trained = store.read_json(source) if source.exists() else {"steps": 0, "diverged_at": None}
        status = "done" if trained["diverged_at"] is None else "diverged"
        store.write_json(files.path / "DONE.json", {"status": status, **trained})
        (files.path / "FAILED.json").unlink(missing_ok=True)


def model_of(artifacts: Artifacts, trial: Trial, files: TrialFiles) -> Path:
    """The folder of the weights that a trial's answers come from."""
    if trial.variant is not None:
        return files.model
    return artifacts.model("teacher" if trial.row == "teacher" else "init") / "model"


def _missing_generations(artifacts: Artifacts, files: TrialFiles) -> list[tuple[str, bool]]:
    suite = artifacts.suite
    kinds = (False, True) if suite.decoding.greedy else (False,)
    wanted = [(name, greedy) for name in suite.data.evaluation for greedy in kinds]
    return [
        (name, greedy) for name, greedy in wanted if not files.generations(name, greedy).exists()
    ]
