"""A run as pandas frames: for notebooks, and what `kdbench export` writes."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pandas as pd

from kdbench.base.errors import UserError
from kdbench.base.store import read_jsonl
from kdbench.config.identity import RunSpec, TrialSpec, canonical
from kdbench.config.schema import DEV
from kdbench.report.table import Board, build_board, stability_frame, to_frame
from kdbench.runs.folder import Run, TrialFiles, find_run
from kdbench.runs.samples import read_samples

TRIAL = ("variant", "seed", "init_seed")
"""The columns that identify a trial, the first of every table of single trials."""

SCORES = (*TRIAL, "set", "sample", "decoding_seed", "metric", "value")
GENERATIONS = (*TRIAL, "set", "sample", "decoding_seed", "text", "n_tokens", "finish")
SAMPLES = ("set", "sample", "instruction", "input", "references", "redistribute")
OUTCOME = (
    "diverged_at",
    "reason",
    "steps",
    "train_seconds",
    "tokens",
    "teacher_passes",
    "generated_tokens",
)
"""What DONE.json says of a trial."""


@dataclass(frozen=True)
class _Frames:
    run: Run

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.run.path}')"

    @cached_property
    def spec(self) -> RunSpec:
        """What identifies the run: its suite, data, backend, variants and seeds."""
        return self.run.spec

    @property
    def sets(self) -> dict[str, bool]:
        """The evaluation sets, and whether their records may stand in published files."""
        evaluation = self.spec.shared.suite.data.evaluation
        return {name: split.redistribute for name, split in evaluation.items()}


@dataclass(frozen=True, repr=False)
class RunFrames(_Frames):
    """The tables of a run, each read when it is first asked for; docs/compare.md has the columns.

    `trials` and `logs` hold every trial that was started, the others what is finished.
    """

    TABLES: ClassVar = (
        "variants",
        "trials",
        "scores",
        "generations",
        "samples",
        "logs",
        "leaderboard",
        "stability",
    )

    @cached_property
    def variants(self) -> pd.DataFrame:
        """One row per variant: its objective, parameters and source as canonical JSON."""
        columns = ["variant", "objective", "params", "source", "reference", "code", "slug"]
        return self.trials[columns].drop_duplicates("variant", ignore_index=True)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial: what it is, whether it is `done`, `diverged` or `open`, its cost."""
        rows = [_trial_row(trial) for trial in self.run.trials()]
        columns = [*TRIAL, "objective", "params", "source", "reference", "code", "slug", "status"]
        frame = pd.DataFrame(rows, columns=[*columns, *OUTCOME])
        texts = {"variant", "objective", "params", "source", "code", "slug", "status", "reason"}
        counts = ("diverged_at", "steps", "tokens", "teacher_passes", "generated_tokens")
        kinds = dict.fromkeys(texts, "string") | dict.fromkeys(counts, "Int64")
        return frame.astype({**kinds, "reference": bool, "train_seconds": float})

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per (trial, set, sample, decoding seed, metric)."""
        return _stack(
            ((trial, pd.read_parquet(trial.scores_path)) for trial in self.run.finished()), SCORES
        )

    @cached_property
    def generations(self) -> pd.DataFrame:
        """One row per answer; `decoding_seed` is -1 for greedy decoding."""
        return _stack(
            (
                (trial, pd.DataFrame(_answers(trial, name)).assign(set=name))
                for trial in self.run.finished()
                for name in (*self.sets, DEV)
            ),
            GENERATIONS,
        )

    @cached_property
    def logs(self) -> pd.DataFrame:
        """One row per training step; what is measured on some steps is NaN on the others."""
        return _stack(
            ((trial, pd.DataFrame(read_jsonl(trial.train_log))) for trial in self.run.trials()),
            (*TRIAL, "step", "loss"),
        )

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per evaluation sample: what was asked, and the answers that count as right.

        `redistribute` says whether the suite allows them in published files.
        """
        rows = [
            (name, index, sample.instruction, sample.input, list(sample.references), free)
            for name, free in self.sets.items()
            for index, sample in enumerate(read_samples(self.run, name))
        ]
        frame = pd.DataFrame(rows, columns=list(SAMPLES))
        return frame.astype({"set": "string", "instruction": "string", "input": "string"})

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per (variant, set, metric), as in leaderboard.csv."""
        return to_frame(self._board)

    @cached_property
    def stability(self) -> pd.DataFrame:
        """One row per variant, as in stability.csv."""
        return stability_frame(self._board)

    @cached_property
    def _board(self) -> Board:
        return build_board(self.run)


@dataclass(frozen=True, repr=False)
class BoardFrames(_Frames):
    """The tables of a published board (`results/boards/<suite>`), which has no trials."""

    TABLES: ClassVar = ("leaderboard", "stability")

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per (variant, set, metric)."""
        return self._table("leaderboard").astype({"tier": "Int64"})

    @cached_property
    def stability(self) -> pd.DataFrame:
        """One row per variant."""
        return self._table("stability").astype({"diverged_at": "Int64", "worst_seed": "Int64"})

    def __getattr__(self, name: str) -> NoReturn:
        """Says what a board lacks."""
        raise AttributeError(
            f"{self!r} has no '{name}': a published board has no trials, only leaderboard and "
            "stability; load the run it was made from"
        )

    def _table(self, name: str) -> pd.DataFrame:
        path = self.run.path / f"{name}.csv"
        if not path.exists():
            raise UserError(f"{path}: no such file, and no trials to compute it from")
        return pd.read_csv(path)


def load_run(path: str | Path) -> RunFrames | BoardFrames:
    """The tables of a run, or of a published board, as pandas frames.

    Args:
        path: the folder, such as `results/instruct` or `results/boards/instruct`.

    Raises:
        UserError: there is no run in that folder.
    """
    folder = Path(path)
    return frames_of(find_run(str(folder.absolute()), folder.parent))


def frames_of(run: Run) -> RunFrames | BoardFrames:
    """The tables of a run, or of a published board."""
    return RunFrames(run) if (run.path / "trials").is_dir() else BoardFrames(run)


def _trial_row(trial: TrialFiles) -> dict[str, Any]:
    spec, done = trial.spec, trial.done
    return {
        **_identity(spec),
        "objective": spec.objective,
        "params": canonical(spec.parameters),
        "source": None if spec.source is None else canonical(spec.source),
        "reference": spec.reference,
        "code": spec.code,
        "slug": spec.slug,
        "status": "open" if done is None else done.status,
        **{name: None if done is None else getattr(done, name) for name in OUTCOME},
    }


def _identity(spec: TrialSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in TRIAL}


def _answers(trial: TrialFiles, set_name: str) -> list[dict[str, Any]]:
    files = (trial.generations(set_name, greedy) for greedy in (False, True))
    return [row for path in files for row in read_jsonl(path)]


def _stack(
    parts: Iterable[tuple[TrialFiles, pd.DataFrame]], columns: Iterable[str]
) -> pd.DataFrame:
    """The trials' rows below one another, the named columns first, then what else there is."""
    first = list(columns)
    labelled = [rows.assign(**_identity(trial.spec)) for trial, rows in parts if len(rows)]
    if not labelled:
        return pd.DataFrame(columns=first)
    frame = pd.concat(labelled, ignore_index=True)
    return frame.reindex(columns=[*first, *(name for name in frame if name not in first)])
