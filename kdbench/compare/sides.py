"""The runs that are compared, as their folders hold them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.store import read_json
from kdbench.config.identity import canonical
from kdbench.config.schema import DEV
from kdbench.report.frames import RunFrames
from kdbench.report.table import AVERAGE
from kdbench.runs.folder import REFERENCES, Run
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
class Side:
    """One of the runs compared: a run with its scores, or a published board with its tables.

    Attributes:
        name: of the folder.
        trials: finished trials by variant and training seed, of the first initial student; {} for
            a board.
        rows: for a board, its leaderboard by (variant, set, metric); {} for a run.
        open_trials: that were started and have no scores.
    """

    name: str
    run: Run
    trials: dict[str, dict[int, TrialResult]]
    rows: dict[tuple[str, str, str], dict[str, Any]]
    open_trials: int

    @cached_property
    def shared(self) -> dict[str, Any]:
        """The shared part of spec.yaml."""
        shared: dict[str, Any] = RunFrames(self.run).spec["shared"]
        return shared

    @property
    def is_board(self) -> bool:
        """Whether there are only tables."""
        return not self.trials

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """(set, metric), without the average."""
        if self.is_board:
            keys = ((name, metric) for _, name, metric in self.rows if name != AVERAGE)
        else:
            trial = next(iter(next(iter(self.trials.values())).values()))
            keys = (key for key in trial.scores if key[0] != DEV)
        return list(dict.fromkeys(keys))

    @property
    def sets(self) -> list[str]:
        """The evaluation sets that were scored."""
        return list(dict.fromkeys(name for name, _ in self.columns))

    @property
    def variants(self) -> list[str]:
        """The variants, without the references."""
        names = dict.fromkeys(name for name, _, _ in self.rows) if self.is_board else self.trials
        return [name for name in names if name not in REFERENCES]

    @property
    def references(self) -> list[str]:
        """The references that were scored."""
        names = {name for name, _, _ in self.rows} if self.is_board else set(self.trials)
        return [name for name in REFERENCES if name in names]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What provenance.json says of the machine and the code; a list where commands differ."""
        path = self.run.path / "provenance.json"
        commands = read_json(path)["commands"] if path.exists() else []
        found: dict[str, Any] = {}
        for key in FACTS:
            given = [entry[key] for entry in commands if entry.get(key) not in (None, {})]
            values = list({canonical(value): value for value in given}.values())
            found[key] = values[0] if len(values) == 1 else values or None
        # A command that was stopped, or that had fewer initial students, knows fewer digests.
        found["weights"] = _merged([entry.get("weights") or {} for entry in commands])
        return found

    def definition(self, variant: str) -> dict[str, Any]:
        """What a variant is: parameters, and for a run its source and the digest of its code."""
        if self.is_board:
            row = next(row for (name, _, _), row in self.rows.items() if name == variant)
            return {"params": json.loads(row["params"])}
        spec = next(iter(self.trials[variant].values())).files.spec
        return {key: spec[key] for key in ("params", "lr", "source", "code") if key in spec}

    def seeds(self, variants: Iterable[str]) -> list[int]:
        """The training seeds that all these variants have; [] for a board."""
        if self.is_board:
            return []
        return sorted(set.intersection(*(set(self.trials[name]) for name in variants)))


def _merged(given: Sequence[Mapping[str, str]]) -> dict[str, str | list[str]]:
    """The digest of each model in any of the commands; a list where commands differ."""
    found: dict[str, str | list[str]] = {}
    for name in dict.fromkeys(name for digests in given for name in digests):
        values = list(dict.fromkeys(digests[name] for digests in given if name in digests))
        found[name] = values[0] if len(values) == 1 else values
    return found


def read_side(run: Run, name: str) -> Side:
    """Reads a run, or the tables of a published board.

    Raises:
        UserError: nothing is finished, or the folder holds neither trials nor a leaderboard.
    """
    frames = RunFrames(run)
    if frames.is_board:
        leaderboard = frames.leaderboard
        records = leaderboard.astype(object).to_dict("records")
        rows = {
            (str(row["variant"]), str(row["set"]), str(row["metric"])): {
                str(key): value for key, value in row.items()
            }
            for row in records
        }
        if not rows:
            raise UserError(f"{run.path}/leaderboard.csv: an empty table")
        return Side(name, run, {}, rows, 0)
    trials: dict[str, dict[int, TrialResult]] = {}
    started = [files for files in run.trials() if not files.spec.get("init_seed")]
    for trial in finished_trials(run):
        if not trial.init_seed:
            trials.setdefault(trial.variant, {})[trial.seed] = trial
    if not trials:
        raise UserError(f"{run.path}: no finished trial to compare; run it first")
    return Side(name, run, trials, {}, len(started) - sum(map(len, trials.values())))
