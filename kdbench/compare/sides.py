"""The runs that are compared, as their folders hold them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.registry import REFERENCES
from kdbench.config.identity import Shared, canonical
from kdbench.config.schema import DEV
from kdbench.report.frames import BoardFrames, frames_of
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import Run
from kdbench.runs.results import TrialResult, finished_trials

FACTS = (
    "commit",
    "dirty",
    "versions",
    "python",
    "hardware",
    "jobs",
    "threads",
    "micro_batch",
    "compile",
)
"""What of provenance.json is compared beside the weights: all but the command and the clock."""


@dataclass(frozen=True)
class Side(ABC):
    """One of the runs compared."""

    name: str
    """Of the folder."""
    run: Run

    @property
    @abstractmethod
    def rows(self) -> list[str]:
        """What its table has rows of: variants and references."""

    @property
    @abstractmethod
    def columns(self) -> list[tuple[str, str]]:
        """(set, metric), without the average."""

    @abstractmethod
    def definition(self, variant: str) -> dict[str, Any]:
        """What is known of a variant beside its figures."""

    @abstractmethod
    def prompts(self, name: str) -> int:
        """How many prompts of a set were asked."""

    @cached_property
    def shared(self) -> Shared:
        """What all its trials have in common."""
        return self.run.spec.shared

    @property
    def sets(self) -> list[str]:
        """The evaluation sets that were scored."""
        return list(dict.fromkeys(name for name, _ in self.columns))

    @property
    def variants(self) -> list[str]:
        """The variants, without the references."""
        return [name for name in self.rows if name not in REFERENCES]

    @property
    def references(self) -> list[str]:
        """The references that were scored."""
        return [name for name in REFERENCES if name in self.rows]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What provenance.json says of the machine and the code; a list where commands differ."""
        commands = self.run.provenance.commands
        found: dict[str, Any] = {}
        for key in FACTS:
            given = [entry[key] for entry in commands if entry.get(key) not in (None, {})]
            values = list({canonical(value): value for value in given}.values())
            found[key] = values[0] if len(values) == 1 else values or None
        # A command that was stopped, or that had fewer initial students, knows fewer digests.
        found["weights"] = _merged([entry.get("weights") or {} for entry in commands])
        return found


@dataclass(frozen=True)
class RunSide(Side):
    """A run with its scores.

    Attributes:
        trials: finished trials by variant and training seed, of the first initial student.
        open_trials: that were started and have no scores.
    """

    trials: dict[str, dict[int, TrialResult]]
    open_trials: int

    @property
    def rows(self) -> list[str]:
        """The variants and references with a finished trial."""
        return list(self.trials)

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """(set, metric), without dev."""
        return [key for key in self._first.scores if key[0] != DEV]

    def definition(self, variant: str) -> dict[str, Any]:
        """Its parameters, the source of its sequences, and the digest of its code."""
        return next(iter(self.trials[variant].values())).files.spec.definition

    def prompts(self, name: str) -> int:
        """How many prompts of a set were asked."""
        return len(self._first.values[name, "rouge_l"])

    def seeds(self, variants: Iterable[str]) -> list[int]:
        """The training seeds that all these variants have."""
        return sorted(set.intersection(*(set(self.trials[name]) for name in variants)))

    @property
    def _first(self) -> TrialResult:
        return next(iter(next(iter(self.trials.values())).values()))


@dataclass(frozen=True)
class BoardSide(Side):
    """A published board, with its tables alone.

    Attributes:
        table: its leaderboard by (variant, set, metric).
    """

    table: dict[tuple[str, str, str], dict[str, Any]]

    @property
    def rows(self) -> list[str]:
        """The variants and references of the leaderboard."""
        return list(dict.fromkeys(name for name, _, _ in self.table))

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """(set, metric), without the average."""
        keys = ((name, metric) for _, name, metric in self.table if name != AVERAGE)
        return list(dict.fromkeys(keys))

    def definition(self, variant: str) -> dict[str, Any]:
        """Its parameters."""
        row = next(row for (name, _, _), row in self.table.items() if name == variant)
        return {"params": json.loads(row["params"])}

    def prompts(self, name: str) -> int:
        """How many prompts of a set were asked."""
        return int(next(row["n_samples"] for key, row in self.table.items() if key[1] == name))


def _merged(given: Sequence[Mapping[str, str]]) -> dict[str, str | list[str]]:
    """The digest of each model in any of the commands; a list where commands differ."""
    found: dict[str, str | list[str]] = {}
    for name in dict.fromkeys(name for digests in given for name in digests):
        values = list(dict.fromkeys(digests[name] for digests in given if name in digests))
        found[name] = values[0] if len(values) == 1 else values
    return found


def read_side(run: Run, name: str) -> RunSide | BoardSide:
    """Reads a run, or the tables of a published board.

    Raises:
        UserError: nothing is finished, or the folder holds neither trials nor a leaderboard.
    """
    frames = frames_of(run)
    if isinstance(frames, BoardFrames):
        records = frames.leaderboard.astype(object).to_dict("records")
        table = {
            (str(row["variant"]), str(row["set"]), str(row["metric"])): {
                str(key): value for key, value in row.items()
            }
            for row in records
        }
        if not table:
            raise UserError(f"{run.path}/leaderboard.csv: an empty table")
        return BoardSide(name, run, table)
    trials: dict[str, dict[int, TrialResult]] = {}
    started = sum(files.spec.init_seed == 0 for files in run.trials())
    for trial in finished_trials(run):
        if not trial.init_seed:
            trials.setdefault(trial.variant, {})[trial.seed] = trial
    if not trials:
        raise UserError(f"{run.path}: no finished trial to compare; run it first")
    return RunSide(name, run, trials, started - sum(map(len, trials.values())))
