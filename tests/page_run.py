"""A finished run with answers, prompts, spec and provenance: all that its page can show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.base.store import write_json, write_jsonl
from kdbench.runs.folder import Run
from kdbench.score.metrics import GREEDY
from tests.synthetic_run import Variant, write_run, write_spec

SETS = {"dolly": 6, "vicuna": 4}
VARIANTS = (
    Variant("amid[alpha=-3]", 60.0, {"alpha": -3.0}),
    Variant("amid[alpha=1]", 57.0, {"alpha": 1.0}, diverged=(1,)),
    Variant("sft", 54.0, generated=40),
)
HOSTILE = (
    "</script><img src=x onerror=\"document.title='ran'\">",
    "<script>document.title='ran'</script>",
    "<!--<script>",
    "{{data}} {{script}} &lt;b&gt; \u2028 \u202e ' \" \\u003c \\",
    "<svg/onload=document.title='ran'>",
    "nan",
)
"""Answers that a page must show and never obey."""


def write_page_run(
    path: Path,
    answers: Sequence[str] = HOSTILE,
    *,
    variants: Sequence[Variant] = VARIANTS,
    prompts: bool = True,
    secret: Sequence[str] = ("vicuna",),
) -> Run:
    """Writes a run in which sample i of every set was answered `answers[i]`.

    Args:
        path: the run's folder.
        answers: repeated where a set has more samples.
        variants: of the run.
        prompts: whether the folder holds the prompts.
        secret: the sets that are marked `redistribute: false`.
    """
    run = write_run(path, variants, sets=SETS)
    for name, count in SETS.items():
        for trial in run.trials():
            for greedy in (False, True):
                seed = GREEDY if greedy else 10
                texts = [answers[sample % len(answers)] for sample in range(count)]
                rows = [
                    {"sample": sample, "decoding_seed": seed, "text": text}
                    for sample, text in enumerate(texts)
                ]
                write_jsonl(trial.generations(name, greedy), rows)
        if prompts:
            rows = [_sample(name, sample) for sample in range(count)]
            write_jsonl(path / "samples" / f"{name}.jsonl", rows)
    write_spec(run, sets=SETS, secret=secret, description="<b>bold</b> & co.", name="hostile")
    command = {"command": "kdbench run --name '<script>'", "jobs": 2, "versions": {"torch": "2.0"}}
    taken = {"board": "<b>there", "archive": "a" * 64, "commits": ["c0ffee", None]}
    known = {"commands": [command], "mixed": [], "accepted": [taken | {"trials": ["sft seed 0"]}]}
    write_json(path / "provenance.json", known)
    return run


def _sample(name: str, sample: int) -> dict[str, Any]:
    return {
        "text": [f"{name}-question-{sample} <i>", f"{name}-input-{sample}" if sample % 2 else ""],
        "references": [f"{name}-reference-{sample}", f"{name}-other-{sample} <i>"],
    }
