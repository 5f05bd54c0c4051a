"""Students of the embedded suite with random weights, saved with their tokenizer."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path


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


def make_students(folder: Path, number: int, prompts: int) -> Students:
    """Makes the suite's tokenizer and prompts, and students of its architecture."""
    from kdbench.config.load import load_suite
    from kdbench.data.files import locate
    from kdbench.data.tokenizer import end_id, load_tokenizer
    from kdbench.models.model import build
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.build import prepare

    before = os.environ.get("KDBENCH_CACHE")
    os.environ["KDBENCH_CACHE"] = str(folder / "cache")
    try:
        suite = load_suite("instruct")
        artifacts = Artifacts(suite, locate(suite, None))
        prepare(artifacts)
        tokenizer = load_tokenizer(artifacts.tokenizer)
        end, asked = end_id(artifacts.tokenizer), artifacts.prompts()["dolly"]
        assert suite.student.architecture is not None
        folders = [folder / f"student-{index}" for index in range(number)]
        for place in folders:
            model = build(suite.student.architecture, tokenizer, end, seed_key=place.name)
            model.save_pretrained(place)
            for path in artifacts.tokenizer.iterdir():
                shutil.copyfile(path, place / path.name)
    finally:
        if before is None:
            del os.environ["KDBENCH_CACHE"]
        else:
            os.environ["KDBENCH_CACHE"] = before
    return Students(
        folders,
        asked[:prompts],
        suite.decoding.max_new_tokens,
        artifacts.sequence_length,
        tokenizer.get_vocab_size(),
        end,
    )
