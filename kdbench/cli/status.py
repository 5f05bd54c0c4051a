"""`kdbench status`: how far a run is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from kdbench.base.store import is_locked, read_json, read_jsonl
from kdbench.base.templates import render
from kdbench.cli.echo import echo
from kdbench.cli.options import JSON, OUT
from kdbench.runs.folder import Run, TrialFiles, find_run


@click.command("status")
@click.argument("name", metavar="RUN")
@OUT
@JSON
def command(name: str, out: Path, as_json: bool) -> None:
    """Show which trials of RUN are done, running, stopped half-way, open, failed or diverged.

    Of a tuned run also how many of its candidates are: `kdbench status RUN/tuning` shows which.
    """
    run = find_run(name, out)
    rows = [describe(trial) for trial in run.trials()]
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    counts = {run.path: Counter(row["state"] for row in rows)}
    tuning = Run(run.path / "tuning")
    if tuning.path.is_dir():
        counts[tuning.path] = Counter(describe(trial)["state"] for trial in tuning.trials())
    echo(render("cli/status.txt", rows=rows, counts=counts), nl=False)


def describe(trial: TrialFiles) -> dict[str, Any]:
    """One trial's state: done, diverged, failed, running, stopped (half done) or open."""
    spec, done = trial.spec, trial.done
    state, detail = "open", ""
    if done is not None:
        state = done.status
        detail = f"at step {done.diverged_at}: {done.reason}" if state == "diverged" else ""
    elif (trial.path / "FAILED.json").exists():
        failure = read_json(trial.path / "FAILED.json")
        state, detail = "failed", f"{failure['stage']}: {failure['error']}"
    elif progress := _progress(trial):
        state, detail = "running" if is_locked(trial.path / ".lock") else "stopped", progress
    return {
        "variant": spec.variant,
        "seed": spec.seed,
        "init_seed": spec.init_seed,
        "state": state,
        "detail": detail,
    }


def _progress(trial: TrialFiles) -> str:
    answers = len(list((trial.path / "generations").glob("*.jsonl")))
    if answers or trial.trained.exists():
        return f"trained, {answers} files of answers"
    rows = read_jsonl(trial.train_log)
    return f"step {rows[-1]['step']}, loss {rows[-1]['loss']:.4f}" if rows else ""
