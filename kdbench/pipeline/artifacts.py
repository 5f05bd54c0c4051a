"""What all trials of a suite share, where it lies in the cache, and how it is made.

Every artefact is keyed by the content it was made from, made once, and used by every run:

    records -> tokenizer -> token ids -> teacher, initial student -> the teacher's hidden states
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.identity import digest
from kdbench.config.schema import Model, Split, Suite
from kdbench.data.arrow import source_digest
from kdbench.data.record import Record
from kdbench.data.records import place_of, read_split, splits_of
from kdbench.models.weights import checkpoint, weights_files

Role = Literal["teacher", "student"]


@dataclass(frozen=True)
class Artifacts:
    """The places of a suite's shared files, whether or not they exist yet."""

    suite: Suite
    data_folder: Path

    @cached_property
    def data_key(self) -> str:
        """Identifies the records: the bytes of their files, and what is read of them."""
        files = {
            name: [self._file_digests[split.path], split.split, split.columns]
            for name, split in splits_of(self.suite.data).items()
        }
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _file_digests(self) -> dict[str, str]:
        """Of every file of records as it was when the command began, by its path in the suite."""
        paths = {split.path for split in splits_of(self.suite.data).values()}
        return {path: source_digest(self.data_folder / path) for path in paths}

    @cached_property
    def tokenizer_source(self) -> Path | None:
        """The folder of an existing tokenizer, or None where one is trained."""
        if self.suite.tokenizer.path:
            return Path(self.suite.tokenizer.path)
        return self.checkpoint("teacher") or self.checkpoint("student")

    def checkpoint(self, role: Role) -> Path | None:
        """The folder of a model that is given, downloaded where need be; None for from scratch."""
        spec = self.spec_of(role)
        return checkpoint(spec, role) if spec.given else None

    @cached_property
    def tokenizer_key(self) -> str:
        """Identifies the tokenizer's content."""
        if self.tokenizer_source is None:
            return digest("bpe", self.data_key, self.suite.tokenizer)
        from kdbench.data.tokenizer import TOKENIZER_FILES

        paths = (self.tokenizer_source / name for name in TOKENIZER_FILES)
        files = {path.name: store.file_digest(path) for path in paths if path.is_file()}
        return digest("tokenizer", files)

    @property
    def tokenizer(self) -> Path:
        """A folder with `tokenizer.json`."""
        return store.cache_dir() / "tokenizers" / self.tokenizer_key

    @cached_property
    def encoded(self) -> Path:
        """`<split>.safetensors` of the training splits, and `prompts.json` of the evaluation."""
        data = self.suite.data
        chosen = {
            name: [split.limit, split.max_prompt_chars, split.max_output_chars]
            for name, split in splits_of(data).items()
        }
        lengths = [data.max_prompt, data.max_length, data.truncation]
        template = [data.template, data.template_options]
        key = digest("encoded", self.data_key, self.tokenizer_key, chosen, lengths, template)
        return store.cache_dir() / "encoded" / key

    def model(self, role: Role, init_seed: int = 0) -> Path:
        """The folder that holds `model/` of the teacher or of an initial student.

        Initial student 0 is the suite's own; the others differ from it in their random weights and
        in the order of their fit.
        """
        spec, given = self.spec_of(role), self.checkpoint(role)
        weights = {} if given is None else content_of(given, code=spec.trust_remote_code)
        name = self.suite.name  # seeds the initial weights and the order of the fit
        encoded = self.encoded.name if spec.fit else ""
        key = digest(role, name, init_seed, spec, weights, self.tokenizer_key, encoded)
        return store.cache_dir() / "models" / key

    def weights_digest(self, role: Role, init_seed: int = 0) -> Path:
        """The last file that a model gets: it is made once this exists."""
        return self.model(role, init_seed) / "weights.sha256"

    def seed_key(self, role: Role, init_seed: int) -> str:
        """The name that seeds a model's initial weights and the order of its fit."""
        model = "teacher" if role == "teacher" else "init"
        return f"{self.suite.name}/{model}" + (f"/{init_seed}" if init_seed else "")

    @cached_property
    def _teacher_parts(self) -> list[Any]:
        """All that the teacher's hidden states depend on, but for what it reads.

        Where it is known before the tasks are handed out, no worker reads the weights again.
        """
        from kdbench.models.model import pick_device

        spec = self.suite.teacher
        content = content_of(self.model("teacher") / "model", code=spec.trust_remote_code)
        # On a CPU everything runs in float32.
        return [content] if pick_device().type == "cpu" else [content, spec.dtype or "own"]

    @property
    def teacher_cache(self) -> Path:
        """The teacher's hidden states; known once the teacher exists."""
        key = digest("cache", *self._teacher_parts, self.encoded.name)
        return store.cache_dir() / "teacher" / key

    def teacher_answers(self, backend: str, version: str) -> Path:
        """The teacher's own responses to the training prompts; known once the teacher exists.

        The folder gets `train.safetensors`, and `cache` with the hidden states on them.
        """
        limits = self.suite.data.max_length, self.suite.decoding.max_new_tokens
        key = digest("answers", *self._teacher_parts, self.encoded.name, backend, version, *limits)
        return store.cache_dir() / "answers" / key

    def spec_of(self, role: Role) -> Model:
        """The suite's description of the model."""
        return self.suite.teacher if role == "teacher" else self.suite.student

    def split_of(self, role: Role) -> str:
        """The encoded split that a model is fitted on."""
        return "teacher" if role == "teacher" and self.suite.data.teacher else "train"

    def records(self, split: Split) -> list[Record]:
        """The records of one split, as they were when the command began.

        Raises:
            UserError: its file has changed since, or is gone: answers to the old prompts would be
                scored against the new references.
        """
        path = self.data_folder / split.path
        try:
            records = read_split(self.data_folder, split)
            same = source_digest(path) == self._file_digests[split.path]
        except (UserError, FileNotFoundError):
            same = False
        if not same:
            raise UserError(
                f"{path}: the records have changed since the command began; put the file back and "
                "give the same command again, or use another --name"
            )
        return records

    @contextmanager
    def named_records(self, split: Split) -> Iterator[None]:
        """Names the file and the row of a record of a split that cannot be encoded.

        Raises:
            UserError: in the place of `RecordError`.
        """
        from kdbench.data.encode import RecordError

        try:
            yield
        except RecordError as error:
            place = place_of(self.data_folder, split, error.number)
            raise UserError(f"{place}: {error}") from error

    def references(self) -> dict[str, list[tuple[str, ...]]]:
        """The references of every sample of every evaluation set."""
        return {
            name: [record.outputs for record in self.records(split)]
            for name, split in self.suite.data.evaluation.items()
        }

    def prompts(self) -> dict[str, list[list[int]]]:
        """The encoded prompts of every evaluation set; known once `encoded` exists."""
        from kdbench.data.encode import encode_prompts
        from kdbench.data.tokenizer import read_frame

        text = (self.encoded / "prompts.json").read_text(encoding="utf-8")
        prompts: dict[str, list[list[int]]] = json.loads(text)
        data = self.suite.data
        frame = read_frame(self.tokenizer, data)
        for name, split in data.evaluation.items():
            if name not in prompts:  # dev, which is answered only where it is to choose
                with self.named_records(split):
                    prompts[name] = encode_prompts(
                        frame, self.records(split), data.max_prompt, data.truncation
                    )
        return prompts

    @property
    def sequence_length(self) -> int:
        """The most tokens of a prompt and its generated answer."""
        return self.suite.data.max_prompt + self.suite.decoding.max_new_tokens

    @property
    def vocabulary(self) -> int:
        """Ids that the tokenizer knows; known once it exists."""
        from kdbench.data.ids import vocabulary_size
        from kdbench.data.tokenizer import load_tokenizer

        return vocabulary_size(load_tokenizer(self.tokenizer))


@cache
def content_of(folder: Path, *, code: bool = False) -> dict[str, str]:
    """Digests of all that a checkpoint's behaviour depends on: weights, settings, tokenizer.

    With `code`, the Python files that come with it run, and count too.
    """
    paths = [*weights_files(folder, pickle=True), *sorted(folder.glob("*.json"))]
    paths += sorted(folder.glob("*.py")) if code else []
    return {path.name: store.file_digest(path) for path in paths}
