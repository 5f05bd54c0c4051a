"""A run as lm-evaluation-harness writes one: per model `results_*.json` and `samples_*.jsonl`.

The layout is that of its EvaluationTracker (v0.4.13): a folder per model, tasks with the metrics
`<name>,<filter>` and `<name>_stderr,<filter>`, one line per document. A model here is a variant
with a training seed; a task is an evaluation set, `<set>_greedy` under greedy decoding; the group
`average` is the unweighted mean over sets.
"""

import hashlib
import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.data.template import prompt_text, user_turn
from kdbench.report.frames import TRIAL, BoardFrames, RunFrames
from kdbench.report.table import AVERAGE
from kdbench.runs.results import RANKED
from kdbench.runs.scores import WHOLE_SET
from kdbench.score.metrics import GREEDY

FILTER = "none"
"""lm-evaluation-harness's name for answers taken as they are."""
UNKNOWN = (
    "system_instruction", "system_instruction_sha", "fewshot_as_multiturn", "chat_template",
    "chat_template_sha", "total_evaluation_time_seconds",
)  # fmt: skip
"""Of its results, what a run has no value for; so too below `config`."""
UNKNOWN_CONFIG = ("batch_size", "device", "use_cache", "limit", "gen_kwargs", "fewshot_seed")


@dataclass(frozen=True)
class _Task:
    """One evaluation set under one decoding."""

    name: str
    set: str
    greedy: bool
    docs: list[dict[str, Any]]
    """Per sample: instruction, input, references."""
    withheld: bool


def write_lm_eval(
    frames: RunFrames | BoardFrames, folder: Path, withheld: Sequence[str]
) -> dict[str, int]:
    """Writes a folder per model; returns how many models, tasks and lines of samples there are.

    Of the withheld sets, prompts and references are left out; their digests stay.

    Raises:
        UserError: the run has no answers, which a published board never has.
    """
    if isinstance(frames, BoardFrames) or frames.generations.empty:
        raise UserError(
            f"{frames.run.path}: no answers, which the files of lm-evaluation-harness consist of; "
            "export another format, or the run itself"
        )
    tasks, commands = _tasks(frames, withheld), frames.run.provenance.commands
    begun = _begun(frames, commands)
    stamp = begun.strftime("%Y-%m-%dT%H-%M-%S.%f")
    scores, answers = (
        dict(iter(frame.groupby(list(TRIAL)))) for frame in (frames.scores, frames.generations)
    )
    lines = 0
    models = [row for row in frames.trials.to_dict("records") if _identity(row) in answers]
    for row in models:
        key = _identity(row)
        start = f"/init-{row['init_seed']}" if row["init_seed"] else ""
        name = f"{row['variant']}/seed-{row['seed']}{start}"
        place = folder / _sanitised(name)
        logged = {
            task.name: list(_samples(frames, task, scores[key], answers[key])) for task in tasks
        }
        for task_name, rows in logged.items():
            store.write_jsonl(place / f"samples_{task_name}_{stamp}.jsonl", rows)
            lines += len(rows)
        arguments = {
            "pretrained": name,
            **{key: row[key] for key in ("objective", "params", "seed")},
        }
        results = _results(frames, tasks, scores[key], logged) | {
            "config": {
                "model": "kdbench",
                "model_args": arguments,
                "model_dtype": frames.spec.shared.dtype,
                "batch_sizes": [],
                "bootstrap_iters": 0,
                **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed"), row["seed"]),
                **dict.fromkeys(UNKNOWN_CONFIG),
            },
            "git_hash": commands[-1]["commit"] if commands else None,
            "date": begun.timestamp(),
            "model_source": "kdbench",
            "model_name": name,
            "model_name_sanitized": _sanitised(name),
            **dict.fromkeys(UNKNOWN),
        }
        store.write_json(place / f"results_{stamp}.json", results)
    return {"models": len(models), "tasks": len(tasks), "samples": lines}


def _begun(frames: RunFrames, commands: Sequence[Mapping[str, Any]]) -> datetime:
    """When the last command of the run began: it stands in the files' names."""
    if commands:
        return datetime.fromisoformat(commands[-1]["started"])
    return datetime.fromtimestamp((frames.run.path / "spec.yaml").stat().st_mtime, UTC)


def _identity(row: Mapping[Hashable, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in TRIAL)


def _tasks(frames: RunFrames, withheld: Sequence[str]) -> list[_Task]:
    scored = set(map(tuple, frames.scores[["set", "metric"]].drop_duplicates().to_numpy()))
    fields = ("instruction", "input", "references")
    docs: dict[str, list[dict[str, Any]]] = {}
    for row in frames.samples.to_dict("records"):
        docs.setdefault(row["set"], []).append({name: row[name] for name in fields})
    return [
        _Task(
            f"{name}_greedy" if greedy else name, name, greedy, docs.get(name, []), name in withheld
        )
        for greedy in (False, True)
        for name in frames.sets
        if (name, "rouge_l_greedy" if greedy else "rouge_l") in scored
    ]


def _of_task(task: _Task, frame: pd.DataFrame) -> pd.DataFrame:
    """Those of a trial's scores or answers that are a task's; metrics lose the decoding's name."""
    rows = frame[(frame["set"] == task.set) & ((frame["decoding_seed"] == GREEDY) == task.greedy)]
    if "metric" not in rows:
        return rows
    return rows.assign(metric=rows["metric"].str.removesuffix("_greedy"))


def _samples(
    frames: RunFrames, task: _Task, scores: pd.DataFrame, answers: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """One line per document; metrics are means over decoding seeds."""
    rows = _of_task(task, scores)
    per_sample = rows[rows["sample"] != WHOLE_SET].pivot_table(
        index="sample", columns="metric", values="value"
    )
    own = _of_task(task, answers).sort_values(["sample", "decoding_seed"])
    texts = own.groupby("sample")["text"].agg(list)
    chat = frames.spec.shared.suite.data.template == "chat"
    asked = user_turn if chat else prompt_text  # the tokenizer's template is not in a run
    for sample, metrics in per_sample.iterrows():
        index = int(str(sample))
        doc = task.docs[index] if task.docs else {}
        prompt = asked(doc["instruction"], doc["input"]) if doc else ""
        target = doc["references"][0] if doc else ""
        given = list(map(str, texts[index]))
        shown = not task.withheld
        yield {
            "doc_id": index,
            "doc": doc if shown else {},
            "target": target if shown else "",
            "arguments": {
                "gen_args_0": {"arg_0": prompt if shown else "", "arg_1": _decoding(frames, task)}
            },
            "resps": [given],
            "filtered_resps": given if len(given) == 1 else [given],
            "filter": FILTER,
            "metrics": list(map(str, per_sample.columns)),
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(prompt),
            "target_hash": _hash(target),
            **{str(name): float(value) for name, value in metrics.items()},
        }


def _results(
    frames: RunFrames,
    tasks: Sequence[_Task],
    scores: pd.DataFrame,
    logged: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    results = {task.name: _metrics(task, _of_task(task, scores)) for task in tasks}
    names = [task.name for task in tasks]
    groups = {}
    for greedy, group in ((False, AVERAGE), (True, f"{AVERAGE}_greedy")):
        members = [task.name for task in tasks if task.greedy == greedy]
        if members:
            groups[group] = members
            results[group] = _average(group, [results[name] for name in members])
    sizes = {name: len(rows) for name, rows in logged.items()}
    version = frames.spec.shared.version
    return {
        "results": results,
        "groups": {group: results[group] for group in groups},
        "group_subtasks": groups,
        "configs": {task.name: _task_config(frames, task, logged[task.name]) for task in tasks},
        "versions": dict.fromkeys([*names, *groups], version),
        "n-shot": dict.fromkeys([*names, *groups], 0),
        "higher_is_better": {
            name: {key.partition(",")[0]: _better(key) for key in found if key.endswith(",none")}
            for name, found in results.items()
        },
        "n-samples": {name: {"original": n, "effective": n} for name, n in sizes.items()},
        "task_hashes": {
            name: _hash("".join(r["doc_hash"] + r["prompt_hash"] + r["target_hash"] for r in rows))
            for name, rows in logged.items()
        },
    }


def _metrics(task: _Task, rows: pd.DataFrame) -> dict[str, Any]:
    """The mean of each metric and its standard error over documents, as `<metric>,none`."""
    length = int(rows.loc[rows["sample"] != WHOLE_SET, "sample"].nunique())
    found: dict[str, Any] = {"name": task.name, "alias": task.name, "sample_len": length}
    per_sample = rows.groupby(["metric", "sample"])["value"].mean()
    for metric, values in per_sample.groupby("metric"):
        n = len(values)
        found[f"{metric},{FILTER}"] = float(values.mean())
        found[f"{metric}_stderr,{FILTER}"] = float(values.std(ddof=1) / n**0.5) if n > 1 else "N/A"
    return found


def _average(name: str, members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over tasks, its error that of independent documents."""
    length = sum(member["sample_len"] for member in members)
    found: dict[str, Any] = {"name": name, "alias": name, "sample_len": length}
    for key in members[0]:
        if key.endswith(f",{FILTER}"):
            values = [member[key] for member in members]
            if "N/A" in values:
                found[key] = "N/A"
            elif "_stderr," in key:
                found[key] = sum(value**2 for value in values) ** 0.5 / len(values)
            else:
                found[key] = sum(values) / len(values)
    return found


def _task_config(frames: RunFrames, task: _Task, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    split = frames.spec.shared.suite.data.evaluation[task.set]
    metrics = rows[0]["metrics"] if rows else []
    return {
        "task": task.name,
        "dataset_path": split.hub or split.path,
        "output_type": "generate_until",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": _better(name)}
            for name in metrics
        ],
        "generation_kwargs": _decoding(frames, task),
        "repeats": len(rows[0]["resps"][0]) if rows else 1,
        "num_fewshot": 0,
        "metadata": {"version": frames.spec.shared.version, "withheld": task.withheld},
    }


def _decoding(frames: RunFrames, task: _Task) -> dict[str, Any]:
    decoding = frames.spec.shared.suite.decoding
    sampled = {"temperature": decoding.temperature, "top_p": decoding.top_p}
    return {
        "until": [],
        "do_sample": not task.greedy,
        "max_gen_toks": decoding.max_new_tokens,
        "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
        **({} if task.greedy else sampled),
    }


def _better(metric: str) -> bool | None:
    """Whether more is better; None for length and distinct-2, which have no better end."""
    return True if metric.partition(",")[0] in RANKED else None


def _sanitised(name: str) -> str:
    """A model's name as a folder, by the rule of lm_eval.utils.sanitize_model_name."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
