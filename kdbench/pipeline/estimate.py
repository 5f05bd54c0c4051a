"""What a run takes, before it starts: trials, tokens, bytes, and roughly how long."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.config.schema import Recipe, Split, Suite
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.formulas import Transformer
from kdbench.pipeline.paper import on_paper, sizes
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.trial import Trial

EFFICIENCY = 0.5
"""Share of the speed of a plain matrix product that models reach here: 0.4 to 0.6 in the trainings
of `instruct`, `dolly-tiny` and `dolly-smollm`, bodies of 0.05M to 106M parameters."""
STEP_SECONDS = 0.01
"""What a step of training takes beside its operations; most of it where models are tiny."""
ANSWER_TOKENS_PER_SECOND = 3000.0
"""What vLLM reaches on one core where the model costs next to nothing (0.5M parameters)."""
START_SECONDS = 40.0
"""Imports of torch, transformers and vLLM in the worker processes, and the report."""


@dataclass(frozen=True)
class Counts:
    """Token counts of a suite: exact once its data are encoded, guessed from words before."""

    mean_length: float
    mean_response: float
    cached_tokens: int
    longest: int
    exact: bool


def cost(plan: Plan, accepted: Collection[Trial] = ()) -> dict[str, Any]:
    """Everything `kdbench plan` shows, as JSON values.

    Args:
        plan: what is to run.
        accepted: trials that a board has already.
    """
    suite, artifacts = plan.artifacts.suite, plan.artifacts
    todo = [
        trial
        for trial in plan.trials
        if trial.files(plan.run).done is None and trial not in accepted
    ]
    trainings = sum(trial.variant is not None for trial in todo)
    counts = _counts(artifacts)
    prompts = sum(len(references) for references in artifacts.references().values())
    answers = len(todo) * prompts * (len(suite.decoding.seeds) + suite.decoding.greedy)
    sampled = sum(_samples(trial) for trial in todo) * _sequences(suite.recipe)
    cached = {
        "teacher": artifacts.weights_digest("teacher").exists(),
        **{
            _student(seed): artifacts.weights_digest("student", seed).exists()
            for seed in range(plan.init_seeds)
        },
    }
    memory = on_paper(
        suite,
        rows=plan.micro_batch,
        length=counts.longest,
        mean_length=counts.mean_length,
        mean_response=counts.mean_response,
        gpu=has_gpu(),
    )
    hidden_states = cached["teacher"] and artifacts.teacher_cache.exists()
    return {
        "run": str(plan.run.path),
        "variants": [variant.name for variant in plan.variants],
        "seeds": plan.seeds,
        "init_seeds": plan.init_seeds,
        "trials": len(plan.trials),
        "trials_to_do": len(todo),
        "training_tokens": round(trainings * _sequences(suite.recipe) * counts.mean_length),
        "token_counts": "exact" if counts.exact else "guessed from words: the data are not encoded",
        "tokens_to_sample_in_training": round(sampled * _answer_tokens(suite, counts)),
        "answers_to_generate": answers,
        "teacher_cache_bytes": counts.cached_tokens * memory["cached_token"],
        "cached": {
            "encoded data": artifacts.encoded.exists(),
            **cached,
            "teacher's hidden states": hidden_states,
        },
        "memory": {**memory, **device_memory(memory, plan.jobs)},
        "estimated_seconds": round(
            _seconds(plan, counts, memory["flops"], trainings, answers + sampled, cached)
        ),
        "jobs": plan.jobs,
    }


def device_memory(memory: Mapping[str, float], processes: int) -> dict[str, Any]:
    """Whether the trainings, and the teacher's own, fit into the device, with a tenth left over.

    Args:
        memory: as `on_paper` gives it.
        processes: trainings at one time.
    """
    import psutil
    import torch

    gpu = has_gpu()
    here = torch.cuda.mem_get_info()[1] if gpu else psutil.virtual_memory().total
    processes = 1 if gpu else processes
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "device_bytes": here,
        "processes": processes,
        "fits": max(memory["total"] * processes, memory["teacher_fit"]) <= 0.9 * here,
    }


def has_gpu() -> bool:
    """Whether there is a GPU to train on."""
    import torch

    return torch.cuda.is_available()


def _student(init_seed: int) -> str:
    return f"initial student {init_seed}" if init_seed else "initial student"


def _samples(trial: Trial) -> bool:
    return trial.variant is not None and trial.variant.sequences.samples


def _answer_tokens(suite: Suite, counts: Counts) -> float:
    return min(suite.decoding.max_new_tokens, counts.mean_response)


def _sequences(recipe: Recipe) -> int:
    return recipe.steps * recipe.batch


def _counts(artifacts: Artifacts) -> Counts:
    if artifacts.encoded.exists():
        from kdbench.data.encode import Encoded

        train, dev = (
            Encoded.load(artifacts.encoded / f"{name}.safetensors") for name in ("train", "dev")
        )
        responses = train.response_lengths.sum(), dev.response_lengths.sum()
        mean_length = len(train.tokens) / len(train)
        return Counts(
            mean_length,
            float(responses[0]) / len(train),
            int(sum(responses)),
            int(train.lengths.max()),
            exact=True,
        )
    return guess_counts(artifacts.suite, artifacts.data_folder)


def guess_counts(suite: Suite, folder: Path) -> Counts:
    """Token counts of training rows from their words, before any tokenizer is here.

    Args:
        suite: whose rows.
        folder: below which its records lie.
    """
    from kdbench.data.records import read_split
    from kdbench.data.template import prompt_text

    data, tokenizer = suite.data, suite.tokenizer
    # Tokens a word of Dolly: 1.3 to 1.4 with GPT-2's tokenizer; a small BPE splits more.
    rate = 1.5 if tokenizer.vocabulary else 1.35
    frame = [rate * len(prompt_text("", text).split()) for text in ("", "input")]
    if tokenizer.frame_tokens:
        frame = [2.0, 3.0]

    def rows(split: Split) -> list[tuple[float, float]]:
        found = []
        for record in read_split(folder, split):
            words = f"{record.instruction} {record.input}".split()
            asked = min(data.max_prompt, rate * len(words) + frame[bool(record.input)])
            answered = rate * len(record.target.split()) + 1
            if data.truncation == "published":  # what is too long is cut, and not left out
                answered = min(answered, data.max_length - asked)
            if asked + answered <= data.max_length:
                found.append((asked, answered))
        return found or [(float(data.max_prompt), float(data.max_length - data.max_prompt))]

    train, dev = rows(data.train), rows(data.dev)
    responses = [answered for _, answered in train]
    return Counts(
        mean_length=sum(map(sum, train)) / len(train),
        mean_response=sum(responses) / len(train),
        cached_tokens=round(sum(responses) + sum(answered for _, answered in dev)),
        longest=data.max_length,
        exact=False,
    )


def _seconds(
    plan: Plan,
    counts: Counts,
    flops: float,
    trainings: int,
    answers: int,
    cached: dict[str, bool],
) -> float:
    """A rough estimate: from finished trials, or else from operations.

    Args:
        flops: of one training.
        answers: to generate, and to sample in training.
    """
    if trainings == 0 and answers == 0:
        return 0.0
    suite = plan.artifacts.suite
    speed = EFFICIENCY * _flops_per_second()
    student = sizes(suite.student, suite).body
    one = _measured_training(plan)
    if one is None:
        one = flops / speed + suite.recipe.steps * STEP_SECONDS
    # The body reads a prompt too, about one of training's; the head sees the answer alone.
    new = _answer_tokens(suite, counts)
    read = counts.mean_length - counts.mean_response + new
    operations = 2.0 * (student.body * read + student.head * new)
    in_parallel = trainings * one + answers * (new / ANSWER_TOKENS_PER_SECOND + operations / speed)
    first = 0.0
    if not cached["teacher"] and suite.teacher.fit is not None:
        first = _fit_seconds(sizes(suite.teacher, suite).body, suite.teacher.fit, counts, speed)
    if suite.student.fit is not None:
        missing = sum(not made for name, made in cached.items() if name != "teacher")
        in_parallel += missing * _fit_seconds(student, suite.student.fit, counts, speed)
    return START_SECONDS + first + in_parallel / plan.jobs


def _measured_training(plan: Plan) -> float | None:
    done = [trial.files(plan.run).done for trial in plan.trials if trial.variant is not None]
    seconds = [float(entry["train_seconds"]) for entry in done if entry is not None]
    return sum(seconds) / len(seconds) if seconds else None


def _fit_seconds(model: Transformer, recipe: Recipe, counts: Counts, speed: float) -> float:
    """Six operations a parameter and token, forward and backward; the head sees responses alone."""
    row = 6.0 * (model.body * counts.mean_length + model.head * counts.mean_response)
    return _sequences(recipe) * row / speed + recipe.steps * STEP_SECONDS


def _flops_per_second() -> float:
    """The speed of a plain matrix product on one core, measured for a tenth of a second."""
    import torch

    matrix = torch.ones(384, 384)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.1:
        matrix @ matrix
        done += 1
    return done * 2 * 384**3 / (time.perf_counter() - begun)
