"""Finished trials as a run leaves them, without training anything."""

from collections.abc import Callable

from kdbench.base.seal import quick_digest
from kdbench.base.store import read_json, write_json, write_jsonl
from kdbench.pipeline.plan import Plan, write_spec
from kdbench.runs.folder import TrialFiles
from tests.synthetic_run import Variant, write_trial

SETS = {"dolly": 8, "vicuna": 6}


WEIGHTS = {"teacher": "t" * 64, "initial student": "i" * 64}


COMMAND = {"command": "kdbench run", "commit": "c0ffee", "jobs": 2, "weights": WEIGHTS}


PlanIn = Callable[..., Plan]


def finish(
    plan: Plan, rows: tuple[str, ...] = ("teacher", "initial student", "sft", "forward-kl")
) -> None:
    """Writes what a run leaves of finished trials, and what it does not publish."""
    write_spec(plan)
    write_json(plan.run.path / "provenance.json", {"commands": [COMMAND], "mixed": []})
    for trial in plan.trials:
        if trial.spec.variant not in rows:
            continue
        files = trial.files(plan.run)
        steps = 0 if trial.variant is None else 60
        write_trial(plan.run, Variant(trial.name, 50.0), 0, steps=steps, sets=SETS)
        made = plan.run.trial(trial.name, 0).path  # references have a space in their names
        if made != files.path:
            files.path.parent.mkdir(parents=True, exist_ok=True)
            made.rename(files.path)
        write_json(files.path / "spec.json", trial.spec.model_dump(mode="json"))
        digests = {
            path.name: quick_digest(path)
            for path in (files.scores_path, files.train_log)
            if path.exists()
        }
        path = files.path / "DONE.json"
        write_json(path, {**read_json(path), "weights": WEIGHTS, "digests": digests})
        for name, size in SETS.items():
            for greedy in (False, True):
                answer = {"decoding_seed": 10, "text": trial.slug, "n_tokens": 1, "finish": "stop"}
                lines = [{"sample": sample, **answer} for sample in range(size)]
                write_jsonl(files.generations(name, greedy), lines)
        for name in ("trained.json", "FAILED.json", "checkpoint.safetensors", "model/config.json"):
            (files.path / name).parent.mkdir(exist_ok=True)
            (files.path / name).write_text("{}")


def of(plan: Plan, row: str) -> TrialFiles:
    (trial,) = [trial for trial in plan.trials if trial.name.startswith(row)]
    return trial.files(plan.run)
