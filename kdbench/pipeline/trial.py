"""The stages of one trial: train -> generate -> score. Each ends in a file and can be resumed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base import seal, store
from kdbench.base.errors import UserError
from kdbench.base.registry import INITIAL_STUDENT, TEACHER
from kdbench.config.identity import Shared, TrialSpec, differences
from kdbench.config.schema import Lora, Suite
from kdbench.generate import GREEDY, Generator, open_generator, write_generations
from kdbench.pipeline.artifacts import Artifacts, Role
from kdbench.runs.folder import Run, TrialFiles
from kdbench.runs.provenance import harness
from kdbench.variants.objective import LR
from kdbench.variants.variant import Variant

if TYPE_CHECKING:
    from kdbench.train.job import Job

UNTRAINED = {
    "diverged_at": None,
    "reason": None,
    "steps": 0,
    "train_seconds": 0.0,
    "tokens": 0,
    "generated_tokens": 0,
    "teacher_passes": 0,
}
"""How the training of a model ended that is given as it is."""


@dataclass(frozen=True)
class Trial:
    """One row of work: a variant with a training seed, or a reference model that is only scored."""

    variant: Variant | None
    seed: int = 0
    init_seed: int = 0
    """Of the initial student that it starts from; where that is scored itself, its own."""
    reference: str = ""
    """`teacher` or `initial student` where there is no variant."""

    @property
    def name(self) -> str:
        """What tables call its row."""
        return self.reference if self.variant is None else self.variant.name

    @property
    def slug(self) -> str:
        """The folder of its row."""
        return self.reference.replace(" ", "-") if self.variant is None else self.variant.slug

    @property
    def label(self) -> str:
        """What it is called while the run goes on."""
        if self.variant is None:
            return self.name if self.role == "teacher" else initial_student(self.init_seed)
        student = f" initial student {self.init_seed}" if self.init_seed else ""
        return f"{self.name} seed {self.seed}{student}"

    @property
    def role(self) -> Role:
        """Whose weights are answered from: the teacher's, or a student's, trained or initial."""
        return "teacher" if self.reference == TEACHER else "student"

    def files(self, run: Run) -> TrialFiles:
        """Where the trial's files lie."""
        return run.trial(self.slug, self.seed, self.init_seed)

    @property
    def spec(self) -> TrialSpec:
        """What identifies the trial within its run."""
        variant = self.variant
        return TrialSpec(
            variant=self.name,
            objective=self.name if variant is None else variant.objective.name,
            params={} if variant is None else variant.plain_params(),
            lr=None if variant is None else variant.lr,
            source=None if variant is None else variant.plain_source(),
            slug=self.slug,
            seed=self.seed,
            init_seed=self.init_seed,
            reference=variant is None,
            code=None if variant is None else variant.code_digest(),
            harness=harness(),
        )


def initial_student(init_seed: int) -> str:
    """What an initial student is called while the run goes on."""
    return f"{INITIAL_STUDENT} {init_seed}" if init_seed else INITIAL_STUDENT


def trials_of(
    variants: list[Variant], seeds: int, init_seeds: int = 1, first_seed: int = 0
) -> list[Trial]:
    """All trials of a run: by initial student, then seed by seed, the references first.

    In that order, a run that is cut short has compared all objectives on fewer initial students,
    or on fewer seeds.
    """
    references = [Trial(None, reference=TEACHER)]
    references += [Trial(None, 0, m, INITIAL_STUDENT) for m in range(init_seeds)]
    return references + [
        Trial(variant, seed, init_seed)
        for init_seed in range(init_seeds)
        for seed in range(first_seed, first_seed + seeds)
        for variant in variants
    ]


def check_claim(trial: Trial, run: Run) -> None:
    """Checks that a trial's folder, where there is one, was made by the same definition.

    Raises:
        UserError: the folder was made by another definition of the objective.
    """
    files = trial.files(run)
    if files.is_claimed and (changed := differences(files.spec.identity, trial.spec.identity)):
        raise UserError(
            f"{files.path} was made by another definition of {trial.name} "
            f"({'; '.join(changed)}); delete the folder to run it again, or use another --name"
        )


def claim(trial: Trial, run: Run) -> None:
    """Writes a trial's spec.json, as long as nothing of it has been run."""
    files = trial.files(run)
    if not (files.is_claimed and files.is_begun):
        store.write_json(files.path / "spec.json", trial.spec.model_dump(mode="json"))


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

    files = trial.files(run)
    with store.locked(files.path / ".lock"):
        if files.trained.exists():
            return
        train(job_of(artifacts, trial, run, shared, micro_batch, compile_objective), progress)


def job_of(
    artifacts: Artifacts,
    trial: Trial,
    run: Run,
    shared: Shared,
    micro_batch: int,
    compile_objective: bool = False,
) -> "Job":
    """What a trial trains: the suite's student, with all that the variant's sequences need."""
    from kdbench.train.job import Job, Weights

    suite, variant = artifacts.suite, trial.variant
    assert variant is not None
    sequences = variant.sequences
    live, answers = None, None
    if sequences.samples:
        folder = artifacts.model("teacher") / "model"
        live = Weights(folder, suite.teacher.dtype, suite.teacher.trust_remote_code)
    if sequences.teacher_answers:
        answers = artifacts.teacher_answers(shared.backend, shared.backend_version)
    initial = artifacts.model("student", trial.init_seed) / "model"
    for folder in (artifacts.encoded, initial):
        seal.check_folder(folder)
    return Job(
        variant=variant,
        seed_key=suite.name,
        seed=trial.seed,
        recipe=suite.recipe.model_copy(update={} if variant.lr is None else {LR: variant.lr}),
        loss=suite.loss,
        diagnostics=suite.diagnostics,
        initial=Weights(initial, trust_remote_code=suite.student.trust_remote_code),
        train=artifacts.encoded / "train.safetensors",
        dev=artifacts.encoded / "dev.safetensors",
        vocabulary=artifacts.vocabulary,
        max_new_tokens=suite.decoding.max_new_tokens,
        max_length=suite.data.max_length,
        out=trial.files(run).path,
        micro_batch=micro_batch,
        teacher_cache=artifacts.teacher_cache,
        live_teacher=live,
        answers=answers,
        lora=suite.student.lora,
        gradient_checkpointing=suite.student.gradient_checkpointing,
        compile=compile_objective,
    )


_generators: dict[str, Generator] = {}
"""The generator of this process: it serves many students one after another."""


def generate_answers(artifacts: Artifacts, trial: Trial, run: Run, shared: Shared) -> None:
    """Writes every (set, decoding) file of a student that is not there yet."""
    files, decoding = trial.files(run), artifacts.suite.decoding
    with store.locked(files.path / ".lock"):
        missing = _missing_generations(artifacts.suite, files)
        if not missing:
            return
        if shared.backend not in _generators:
            _generators[shared.backend] = open_generator(
                shared.backend, artifacts.sequence_length, decoding.no_repeat_ngram_size
            )
        generator = _generators[shared.backend]
        spec = artifacts.spec_of(trial.role)
        model = files.model
        if trial.variant is None:
            model = artifacts.model(trial.role, trial.init_seed) / "model"
        seal.check_folder(model)
        generator.load(model, trust_remote_code=spec.trust_remote_code)
        prompts = artifacts.prompts()
        for name, greedy in missing:
            path = files.generations(name, greedy)
            write_generations(
                generator,
                prompts[name],
                path,
                set_name=name,
                temperature=0.0 if greedy else decoding.temperature,
                top_p=1.0 if greedy else decoding.top_p,
                max_new_tokens=decoding.max_new_tokens,
                decoding_seeds=(GREEDY,) if greedy else decoding.seeds,
            )
            seal.seal_file(path)


def score_answers(artifacts: Artifacts, trial: Trial, run: Run) -> None:
    """Scores a student's answers and marks the trial as done."""
    from kdbench.score import score_trial

    files = trial.files(run)
    with store.locked(files.path / ".lock"):
        if not files.scores_path.exists():
            for path in (files.path / "generations").glob("*.jsonl"):
                seal.check_sealed(path)
            score_trial(files, artifacts.references())
        source, dropout = files.trained, 0.0
        if trial.variant is None:
            source = artifacts.model(trial.role, trial.init_seed) / "trained.json"
        elif trial.variant.sequences.dropout:
            dropout = dropout_of(files.model, artifacts.suite.student.lora)
        trained = store.read_json(source) if source.exists() else UNTRAINED
        vouched = (files.scores_path, files.train_log)
        done = {
            "status": "done" if trained["diverged_at"] is None else "diverged",
            **trained,
            "weights": _weights(artifacts, trial),
            "dropout": dropout,
            "digests": {path.name: seal.quick_digest(path) for path in vouched if path.exists()},
        }
        store.write_json(files.path / "DONE.json", done)
        (files.path / "FAILED.json").unlink(missing_ok=True)


def dropout_of(model: Path, lora: Lora | None) -> float:
    """The largest probability of dropout in a student's layers and adapters; 0 for none."""
    named = store.read_json(model / "config.json").items()
    own = [
        float(value)
        for key, value in named
        # Heads for classification, which no student here has, bring a dropout of their own.
        if "drop" in key and not key.startswith(("summary", "classifier"))
        if isinstance(value, int | float)
    ]
    return max([*own, 0.0 if lora is None else lora.dropout], default=0.0)


def _weights(artifacts: Artifacts, trial: Trial) -> dict[str, str]:
    """Digests of the shared models that a trial depends on, as far as they are known."""
    students = [trial.init_seed] if trial.role == "student" else []
    digests = weights_of(artifacts, students)
    if trial.reference == INITIAL_STUDENT:
        digests.pop("teacher", None)
    return digests


def weights_of(artifacts: Artifacts, init_seeds: Iterable[int]) -> dict[str, str]:
    """Digests of the teacher and of some initial students, as far as they exist."""
    paths = {"teacher": artifacts.weights_digest("teacher")}
    for seed in init_seeds:
        paths[initial_student(seed)] = artifacts.weights_digest("student", seed)
    return {name: path.read_text() for name, path in paths.items() if path.exists()}


def _missing_generations(suite: Suite, files: TrialFiles) -> list[tuple[str, bool]]:
    return [
        (name, greedy)
        for name in suite.data.evaluation
        for greedy in ((False, True) if suite.decoding.greedy else (False,))
        if not seal.is_sealed(files.generations(name, greedy))
    ]
