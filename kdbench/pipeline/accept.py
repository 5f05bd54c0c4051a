"""Takes the trials of a published board as done: a run goes on where another machine stopped.

A board's trial is judged as a run judges its own: by what all trials share and by its spec.json.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.seal import quick_digest_of
from kdbench.base.strict_yaml import validated
from kdbench.config.identity import Done, TrialSpec, differences, problem
from kdbench.generate import GREEDY
from kdbench.pipeline import provenance
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.trial import Trial
from kdbench.runs.archive import ARCHIVE, FILES, Files, key_of, unpack
from kdbench.runs.folder import STUDY, Run
from kdbench.runs.scores import scores_of


@dataclass(frozen=True)
class Offer:
    """What a board holds for a plan.

    Attributes:
        fitting: trials that can be taken as done.
        left: one line per trial of the board that cannot, with the reason.
    """

    board: Path
    fitting: list[tuple[Trial, Files]]
    left: list[str]


def find_board(name: str, out: Path) -> Path:
    """The folder of a board with trials, by its name below `out`/boards or by its path.

    Raises:
        UserError: there is none, or it was published without its trials.
    """
    for folder in (Path(name), out / "boards" / name):
        if (folder / ARCHIVE).is_file():
            return folder
        if (folder / STUDY).is_file():
            raise UserError(f"--accept {name}: {folder} is a study, whose board has no trials")
        if (folder / "spec.yaml").is_file():
            raise UserError(
                f"--accept {name}: {folder} holds no {ARCHIVE}; `kdbench publish RUN --trials` "
                "writes it"
            )
    raise UserError(f"--accept {name}: no such board, neither as a path nor in {out}/boards")


def judge(plan: Plan, board: Path) -> Offer:
    """Says which of a board's trials a plan can take as done; writes nothing.

    A trial that the run has finished or begun itself is left as it is.

    Raises:
        UserError: the board was made with other settings; naming every field that differs.
    """
    if changed := differences(Run(board).spec.identity, plan.spec.identity):
        raise UserError(
            f"{board} was made with other settings, so none of its trials can be accepted:\n  "
            + "\n  ".join(changed)
        )
    offered = unpack(board / ARCHIVE)
    fitting, left = [], []
    for trial in plan.trials:
        files = trial.files(plan.run)
        held = offered.pop(key_of(files), None)
        if held is None or files.done is not None:
            continue
        if reason := _unfit(plan, trial, held):
            left.append(f"not accepted, runs here: {trial.label}: {reason}")
        else:
            fitting.append((trial, held))
    if offered:
        left.append(f"not accepted, not asked for: {', '.join(sorted(offered))}")
    return Offer(board, fitting, left)


def tell(offer: Offer) -> list[str]:
    """What a user should know about an offer, line by line."""
    return [f"{len(offer.fitting)} trials accepted from {offer.board}", *offer.left]


def accept(plan: Plan, offer: Offer) -> None:
    """Writes the fitting trials into the run's folder, and into its provenance whose they are."""
    if not offer.fitting:
        return
    provenance.accept(plan, offer.board, [trial.label for trial, _ in offer.fitting])
    for trial, held in offer.fitting:
        with store.new_folder(trial.files(plan.run).path) as folder:
            for name in _expected(plan, trial):
                store.write_bytes(folder / name, held[name])


def unlike(plan: Plan, name: str) -> str | None:
    """A warning where finished trials were made with another teacher or initial student `name`."""
    here = provenance.weights(plan).get(name)
    others = {
        trial.label: digest
        for trial in plan.trials
        if (done := trial.files(plan.run).done) is not None
        and (digest := done.weights.get(name)) not in (None, here)
    }
    if here is None or not others:
        return None
    shown = ", ".join(list(others)[:3]) + (", ..." if len(others) > 3 else "")
    what = "the teacher" if name == "teacher" else f"the initial student ({name})"
    return (
        f"{what} made on this machine is not that of {len(others)} finished trials "
        f"(weights {here[:12]} here, {next(iter(others.values()))[:12]} there: {shown}). What "
        "runs from here on is NOT PAIRED with them, and tiers and comparisons between the two do "
        "not hold. Copy the other machine's cache (KDBENCH_CACHE), or run all trials on one machine"
    )


def _unfit(plan: Plan, trial: Trial, held: Files) -> str:
    """Why a trial of a board cannot be taken as done; "" where it can."""
    path = trial.files(plan.run).path
    if any((path / name).exists() for name in ("train.jsonl", "generations", "model")):
        return "it has been begun here"
    if missing := [name for name in _expected(plan, trial) if name not in held]:
        return f"the board lacks {', '.join(missing)}"
    try:
        spec = validated(TrialSpec, _object(held["spec.json"]))
        done = validated(Done, _object(held["DONE.json"]))
    except ValidationError as error:
        return f"broken (spec.json or DONE.json: {problem(error)})"
    except (ValueError, RecursionError) as error:
        return f"broken ({error})"
    if changed := differences(spec.identity, trial.spec.identity):
        return "; ".join(changed)
    if not plan.mix_code and spec.harness.rooms != trial.spec.harness.rooms:
        return (
            f"made by other code of kdbench (digest {spec.harness.rooms}, here "
            f"{trial.spec.harness.rooms}); --mix-code accepts it all the same"
        )
    for name, digest in done.digests.items():
        if name not in held or quick_digest_of(held[name]) != digest:
            return f"{name} is not the one that DONE.json vouches for"
    if trial.variant is not None and "train.jsonl" not in done.digests:
        return "DONE.json does not vouch for train.jsonl"
    if "scores.parquet" not in done.digests:
        return "DONE.json does not vouch for scores.parquet"
    return _wrong_scores(plan, held["scores.parquet"])


def _wrong_scores(plan: Plan, content: bytes) -> str:
    """Why scores are not those of the suite's samples; "" where they are."""
    suite = plan.shared.suite
    try:
        scores = scores_of(io.BytesIO(content), "scores.parquet")
    except UserError as error:
        return f"broken ({error})"
    seeds = tuple(sorted(suite.decoding.seeds))
    wanted: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}
    for name, references in plan.artifacts.references().items():
        sampled = (seeds, len(references))
        wanted |= dict.fromkeys(
            [(name, one) for one in ("rouge_l", "exact_match", "length")], sampled
        )
        wanted[name, "distinct_2"] = (seeds, 1)
        if suite.decoding.greedy:
            wanted[name, "rouge_l_greedy"] = ((GREEDY,), len(references))
    found = {key: (one.seeds, one.values.shape[1]) for key, one in scores.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            return f"scores.parquet: {key[1]} on {key[0]} is not of the suite's samples"
    return ""


def _expected(plan: Plan, trial: Trial) -> list[str]:
    suite = plan.shared.suite
    named = [name for name in FILES if name != "train.jsonl" or trial.variant is not None]
    for name in suite.data.evaluation:
        named.append(f"generations/{name}.jsonl")
        if suite.decoding.greedy:
            named.append(f"generations/{name}.greedy.jsonl")
    return named


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
