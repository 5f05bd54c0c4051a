"""Synthetic runs with what comparing and exporting read: spec, provenance, prompts, answers."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdbench.base.store import write_json, write_jsonl
from kdbench.report.table import leaderboard
from kdbench.runs.folder import Run
from kdbench.score.metrics import GREEDY
from tests.synthetic_run import SETS, Variant, write_run, write_spec


def write_described_run(
    path: Path,
    variants: Sequence[Variant],
    *,
    settings: Sequence[str] = (),
    sets: Mapping[str, int] = SETS,
    data_digest: str = "d0",
    init: str = "aa" * 32,
    answers: bool = False,
    secret: Sequence[str] = (),
) -> Run:
    """Writes a finished run of the suite `instruct`, with answers and prompts on demand.

    `settings` are changes of the suite as of `--set`, `init` is the digest of the initial student's
    weights, and the `secret` sets are marked `redistribute: false`.
    """
    run = write_run(path, variants, sets=sets)
    names = [variant.name for variant in variants]
    write_spec(run, names, settings=settings, sets=sets, data_digest=data_digest, secret=secret)
    command = {
        "command": "kdbench run",
        "commit": "c" * 40,
        "versions": {"torch": "2.13.0"},
        "jobs": 2,
        "weights": {"teacher": "bb" * 32, "initial student": init},
        "started": "2026-11-24T11:51:05+00:00",
    }
    write_json(path / "provenance.json", {"commands": [command], "mixed": []})
    if answers:
        for name, count in sets.items():
            _write_answers(run, name, count)
    return run


def as_board(run: Run, path: Path) -> Run:
    """The run as its published tables."""
    path.mkdir()
    leaderboard(run).to_csv(path / "leaderboard.csv", index=False)
    for name in ("spec.yaml", "provenance.json"):
        shutil.copyfile(run.path / name, path / name)
    return Run(path)


def answer(name: str, sample: int, greedy: bool) -> str:
    """What every student said."""
    return f'{name}, {sample}: {"gréedy" if greedy else "sampled"}\n"quoted"'


def _write_answers(run: Run, name: str, count: int) -> None:
    questions = [
        {
            "text": [f"{name} question {sample}", f"context {sample}" if sample % 2 else ""],
            "references": [f"{name} reference {sample}", "other"],
        }
        for sample in range(count)
    ]
    write_jsonl(run.path / "samples" / f"{name}.jsonl", questions)
    for trial in run.trials():
        for greedy in (False, True):
            rows = [
                {
                    "sample": sample,
                    "decoding_seed": GREEDY if greedy else 10,
                    "text": answer(name, sample, greedy),
                    "n_tokens": 5,
                    "finish": "stop",
                }
                for sample in range(count)
            ]
            write_jsonl(trial.generations(name, greedy), rows)
