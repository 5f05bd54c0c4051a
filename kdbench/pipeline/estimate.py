"""What a run takes, before it starts: trials, tokens, bytes, and roughly how long."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.config.schema import Model, Recipe, Split, Suite
from kdbench.head.chunked import BLOCK_ELEMENTS, CHUNK_ELEMENTS
from kdbench.models.size import Size, size_of
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.plan import Plan, Request
from kdbench.pipeline.trial import Trial, initial_student, weights_of

EFFICIENCY = 0.5
"""Share of the speed of a plain matrix product that models reach here: 0.4 to 0.6 in the trainings
of `instruct`, `dolly-tiny` and `dolly-smollm`, bodies of 0.05M to 106M parameters."""
STEP_SECONDS = 0.01
"""What a step of training takes beside its operations; most of it where models are tiny."""
ANSWER_TOKENS_PER_SECOND = 3000.0
"""What vLLM reaches on one core where the model costs next to nothing (0.5M parameters)."""
START_SECONDS = 40.0
"""Imports of torch, transformers and vLLM in the worker processes, and the report."""
OBJECTIVE_BUFFERS = 8
"""Buffers of one block of logits that an objective and its gradient keep: five to twelve."""


@dataclass(frozen=True)
class Counts:
    """Token counts of a suite: exact once its data are encoded, guessed from words before."""

    mean_length: float
    mean_response: float
    cached_tokens: int
    longest: int
    exact: bool


def cost(plan: Plan, accepted: Collection[Trial] = ()) -> dict[str, Any]:
    """Everything `kdbench plan` shows of a run, as JSON values, but for trials of a board."""
    suite, artifacts = plan.artifacts.suite, plan.artifacts
    todo = [t for t in plan.trials if t.files(plan.run).done is None and t not in accepted]
    trainings = [trial.variant for trial in todo if trial.variant is not None]
    counts = _counts(artifacts)
    prompts = sum(len(references) for references in artifacts.references().values())
    answers = len(todo) * prompts * (len(suite.decoding.seeds) + suite.decoding.greedy)
    sampling = sum(variant.sequences.samples for variant in trainings)
    sampled = sampling * _sequences(suite.recipe)
    made = weights_of(artifacts, range(plan.init_seeds))
    names = ["teacher", *map(initial_student, range(plan.init_seeds))]
    models = {name: name in made for name in names}
    memory = memory_of(suite, counts, rows=plan.micro_batch, gpu=_has_gpu())
    seconds = _seconds(plan, counts, memory["flops"], len(trainings), answers + sampled, models)
    hidden_states = models["teacher"] and artifacts.teacher_cache.exists()
    encoded = {"encoded data": artifacts.encoded.exists()}
    return {
        "run": str(plan.run.path),
        "variants": [variant.name for variant in plan.variants],
        "seeds": plan.seeds,
        "init_seeds": plan.init_seeds,
        "trials": len(plan.trials),
        "trials_to_do": len(todo),
        "training_tokens": round(len(trainings) * _sequences(suite.recipe) * counts.mean_length),
        "token_counts": "exact" if counts.exact else "guessed from words: the data are not encoded",
        "tokens_to_sample_in_training": round(sampled * _answer_tokens(suite, counts)),
        "answers_to_generate": answers,
        "teacher_cache_bytes": counts.cached_tokens * memory["cached_token"],
        "cached": {**encoded, **models, "teacher's hidden states": hidden_states},
        "memory": {**memory, **device_memory(memory, plan.jobs)},
        "estimated_seconds": round(seconds),
        "jobs": plan.jobs,
    }


def cost_on_paper(request: Request, suite: Suite, missing: list[str]) -> dict[str, Any]:
    """What can be said while some of the models are not here, as JSON values.

    Those that are missing state their `shape`. Records are guessed from where they lie; without
    them every row counts as the longest.
    """
    from kdbench.data.files import place

    folder, longest = place(suite.data, request.data_dir), suite.data.max_length
    known = all((folder / split.path).is_file() for split in (suite.data.train, suite.data.dev))
    counts = guess_counts(suite, folder) if known else at_most(longest)
    rows = _sequences(suite.recipe)
    micro_batch = request.micro_batch or suite.recipe.batch
    memory = memory_of(suite, counts, rows=micro_batch, gpu=_has_gpu())
    figures = {
        "suite": suite.name,
        "not_here": missing,
        "training_tokens_at_most": rows * longest,
        "memory": {**memory, **device_memory(memory, 1)},
    }
    if known:
        figures["training_tokens_guessed"] = round(rows * counts.mean_length)
        figures["teacher_cache_bytes"] = counts.cached_tokens * memory["cached_token"]
    return figures


def memory_of(suite: Suite, counts: Counts, *, rows: int, gpu: bool) -> dict[str, float]:
    """Bytes of each part of a training, and operations of one trial.

    Args:
        suite: its models are here, or state their `shape`.
        counts: a micro-batch is padded to the longest row; the heads see responses alone.
        rows: of a micro-batch.
        gpu: bodies run in bfloat16 there, and the objective takes a whole chunk at a time.

    Returns:
        Bytes: `weights`, `optimizer` (gradients and moments), `activations` (of one micro-batch),
        `teacher_head` and `chunk`, all at one time in a training process, and `total` of them;
        `teacher_body`, on top of them for on-policy objectives and while the cache is filled;
        `teacher_fit`, all that its supervised training takes before, 0 where it has none;
        `cached_token`, of the teacher's cache; `checkpoint`, on disk; and `flops` of a trial with
        a cached teacher.
    """
    recipe, fit = suite.recipe, suite.teacher.fit
    teacher, student = sizes_of(suite)
    wide = _teacher_bytes(suite.teacher, teacher) if gpu else 4
    tokens = min(rows, recipe.batch) * counts.longest
    parts = _training(suite.student, student, tokens, gpu=gpu)
    parts["teacher_head"] = teacher.head * wide
    fitting = 0.0
    if fit is not None:
        tokens = min(rows, fit.batch) * counts.longest
        fitting = sum(_training(suite.teacher, teacher, tokens, gpu=gpu).values())
    # Forward and twice that backward; with checkpointing the forward pass runs again.
    passes = 4 if suite.student.gradient_checkpointing else 3
    body = passes * student.forward(counts.mean_length / 2)
    row = counts.mean_length * body + counts.mean_response * (6 * student.head + 2 * teacher.head)
    return {
        **parts,
        "total": sum(parts.values()),
        "teacher_body": teacher.parameters * wide,
        "cached_token": teacher.width * wide,
        "teacher_fit": fitting,
        "checkpoint": 12 * student.trained,
        "flops": _sequences(recipe) * row,
    }


def device_memory(memory: Mapping[str, float], processes: int) -> dict[str, Any]:
    """Whether so many trainings, and the teacher's own, fit into the device with a tenth left."""
    import psutil
    import torch

    gpu = _has_gpu()
    here = torch.cuda.mem_get_info()[1] if gpu else psutil.virtual_memory().total
    processes = 1 if gpu else processes
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "device_bytes": here,
        "processes": processes,
        "fits": max(memory["total"] * processes, memory["teacher_fit"]) <= 0.9 * here,
    }


def sizes_of(suite: Suite) -> tuple[Size, Size]:
    """The sizes of a suite's teacher and of its student."""
    vocabulary = suite.tokenizer.vocabulary or 50_257
    models = {"teacher": suite.teacher, "student": suite.student}
    teacher, student = (size_of(model, role, vocabulary) for role, model in models.items())
    return teacher, student


def _training(model: Model, size: Size, tokens: int, *, gpu: bool) -> dict[str, float]:
    """Bytes of what is trained, while it sees so many tokens, padding included, at a time."""
    # What autograd keeps of a layer and token, read off transformers' Llama and GPT-2. Llama: the
    # inputs of both norms, what they return before and after their weight, queries, keys, values,
    # the attention's result and its copy; of the MLP both halves, their product and the
    # activation. GPT-2's `gelu_new` keeps five intermediate results in the place of the gate.
    kept = 9 * size.width + 6 * size.mlp
    if size.gated:
        kept = 6 * size.width + 3 * size.queries + 2 * size.keys + 4 * size.mlp
    kept *= 2 if gpu else 4
    a_token = size.layers * kept
    if model.gradient_checkpointing:
        a_token = size.layers * size.width * 4 + kept
    logits = 4 * min(CHUNK_ELEMENTS, tokens * size.vocabulary)
    block = logits if gpu else 4 * min(BLOCK_ELEMENTS, tokens * size.vocabulary)
    return {
        # Beside float32 weights, autocast keeps those that it has cast.
        "weights": size.parameters * (6 if gpu else 4),
        "optimizer": size.trained * 12,
        "activations": tokens * a_token,
        # Logits of both models, the blocks of the objective, and, on the way to the weight's
        # gradient, the head's twice and that of the embeddings.
        "chunk": 2 * logits + OBJECTIVE_BUFFERS * block + 3 * 4 * size.head,
    }


def _teacher_bytes(model: Model, size: Size) -> int:
    """Bytes of a teacher's weight on a GPU; what is fitted or not here yet counts as float32."""
    dtype: str = model.dtype or ("" if model.fit else size.dtype)
    return 2 if dtype in ("bfloat16", "float16") else 4


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _answer_tokens(suite: Suite, counts: Counts) -> float:
    return min(suite.decoding.max_new_tokens, counts.mean_response)


def _sequences(recipe: Recipe) -> int:
    return recipe.steps * recipe.batch


def _counts(artifacts: Artifacts) -> Counts:
    if not artifacts.encoded.exists():
        return guess_counts(artifacts.suite, artifacts.data_folder)
    from kdbench.data.encode import Encoded

    paths = [artifacts.encoded / f"{name}.safetensors" for name in ("train", "dev")]
    train, dev = (Encoded.load(path) for path in paths)
    responses = float(train.response_lengths.sum())
    return Counts(
        mean_length=len(train.tokens) / len(train),
        mean_response=responses / len(train),
        cached_tokens=int(responses + float(dev.response_lengths.sum())),
        longest=int(train.lengths.max()),
        exact=True,
    )


def at_most(length: int) -> Counts:
    """The counts where every row is as long as is allowed, and all of it a response."""
    return Counts(float(length), float(length), 0, length, exact=False)


def guess_counts(suite: Suite, folder: Path) -> Counts:
    """Token counts of training rows from their words, before any tokenizer is here."""
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
    responses = sum(answered for _, answered in train)
    return Counts(
        mean_length=sum(map(sum, train)) / len(train),
        mean_response=responses / len(train),
        cached_tokens=round(responses + sum(answered for _, answered in dev)),
        longest=data.max_length,
        exact=False,
    )


def _seconds(
    plan: Plan,
    counts: Counts,
    flops: float,
    trainings: int,
    answers: int,
    models: Mapping[str, bool],
) -> float:
    """A rough estimate: from finished trials, or else from the `flops` of one training.

    `answers` counts those to generate and to sample in training; `models`, what is made of them.
    """
    if trainings == 0 and answers == 0:
        return 0.0
    suite = plan.artifacts.suite
    teacher, student = sizes_of(suite)
    speed = EFFICIENCY * flops_per_second()
    done = [trial.files(plan.run).done for trial in plan.trials if trial.variant is not None]
    took = [entry.train_seconds for entry in done if entry is not None]
    estimated = flops / speed + suite.recipe.steps * STEP_SECONDS
    one = sum(took) / len(took) if took else estimated
    new = _answer_tokens(suite, counts)
    in_parallel = trainings * one + answers * answer_seconds(student, counts, new, speed)
    first = 0.0
    if not models["teacher"] and suite.teacher.fit is not None:
        first = _fit_seconds(teacher, suite.teacher.fit, counts, speed)
    if suite.student.fit is not None:
        missing = sum(not made for name, made in models.items() if name != "teacher")
        in_parallel += missing * _fit_seconds(student, suite.student.fit, counts, speed)
    return START_SECONDS + first + in_parallel / plan.jobs


def answer_seconds(student: Size, counts: Counts, new: float, speed: float) -> float:
    """Seconds of an answer of `new` tokens at `speed` operations a second.

    The body reads a prompt, too, about as long as one of training's; the head the answer alone.
    """
    read = counts.mean_length - counts.mean_response + new
    operations = 2.0 * (student.body * read + student.head * new)
    return new / ANSWER_TOKENS_PER_SECOND + operations / speed


def _fit_seconds(model: Size, recipe: Recipe, counts: Counts, speed: float) -> float:
    """Six operations a parameter and token, forward and backward; the head sees responses alone."""
    row = 6.0 * (model.body * counts.mean_length + model.head * counts.mean_response)
    return _sequences(recipe) * row / speed + recipe.steps * STEP_SECONDS


def flops_per_second() -> float:
    """The speed of a plain matrix product on one core, measured for a tenth of a second."""
    import torch

    matrix = torch.ones(384, 384)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.1:
        matrix @ matrix
        done += 1
    return done * 2 * 384**3 / (time.perf_counter() - begun)
