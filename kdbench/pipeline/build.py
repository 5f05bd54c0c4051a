"""The work of making a suite's shared files; each function runs in a worker process."""

import shutil
from pathlib import Path
from typing import Any

from kdbench.base import seal, store
from kdbench.base.seeds import derive
from kdbench.config.identity import Shared, digest
from kdbench.config.schema import Loss, Model
from kdbench.data.encode import Encoded, encode_prompts, encode_split
from kdbench.data.records import splits_of
from kdbench.data.tokenizer import (
    TOKENIZER_FILES,
    end_id,
    read_frame,
    train_tokenizer,
)
from kdbench.generate import open_generator
from kdbench.models.weights import weights_files
from kdbench.pipeline.artifacts import Artifacts, Role
from kdbench.train.job import Job, Weights
from kdbench.train.loop import Progress, train
from kdbench.variants.variant import parse


def prepare(artifacts: Artifacts) -> None:
    """Makes the tokenizer and the token ids of every split."""
    with store.locked(artifacts.encoded.with_suffix(".lock")):
        _make_tokenizer(artifacts)
        if artifacts.encoded.exists():
            return
        data = artifacts.suite.data
        frame = read_frame(artifacts.tokenizer, data)
        with seal.sealed_folder(artifacts.encoded) as folder:
            for name, split in splits_of(data.model_copy(update={"evaluation": {}})).items():
                with artifacts.named_records(split):
                    encoded = encode_split(frame, artifacts.records(split), data, name)
                encoded.save(folder / f"{name}.safetensors")
            prompts = {}
            for name, split in data.evaluation.items():
                with artifacts.named_records(split):
                    prompts[name] = encode_prompts(
                        frame, artifacts.records(split), data.max_prompt, data.truncation
                    )
            store.write_json(folder / "prompts.json", prompts)


def is_prepared(artifacts: Artifacts) -> bool:
    """Whether the tokenizer and the token ids are there."""
    return artifacts.tokenizer.exists() and artifacts.encoded.exists()


def make_model(
    artifacts: Artifacts, role: Role, init_seed: int, micro_batch: int, progress: Progress
) -> None:
    """Makes the teacher or an initial student: loaded or built, then fitted on gold responses."""
    from kdbench.models.model import adapt
    from kdbench.models.probe import check_computation

    folder = artifacts.model(role, init_seed)
    with store.locked(folder.with_suffix(".lock")):
        if artifacts.weights_digest(role, init_seed).exists():
            return
        spec = artifacts.spec_of(role)
        given = artifacts.checkpoint(role)
        if given is None:
            start = folder / "start"
            _build(artifacts, role, init_seed, start)
        else:
            start = one_file(given, folder / "start", spec)
            model = _load(start, spec).eval()
            longest = max(artifacts.suite.data.max_length, artifacts.sequence_length)
            check_computation(model, artifacts.vocabulary, role, longest)
            if spec.lora is not None:
                adapt(model, spec.lora, seed_key=role)  # refuses layers that cannot be adapted
            del model
        if spec.fit is None:
            shutil.copytree(start, folder / "model", dirs_exist_ok=True)
        else:
            _fit(artifacts, role, init_seed, start, micro_batch, progress)
        # The suite's tokenizer, the teacher's as a rule, decides where answers end.
        _copy_tokenizer(artifacts.tokenizer, folder / "model")
        seal.seal(folder / "model")
        digest_file = artifacts.weights_digest(role, init_seed)
        store.write_text(digest_file, digest_of_weights(folder / "model", spec))


def digest_of_weights(folder: Path, spec: Model) -> str:
    """What a trial records of the model: its weights, and the code of its own that runs."""
    weights = store.file_digest(folder / "model.safetensors")
    if not spec.trust_remote_code:
        return weights
    code = {path.name: store.file_digest(path) for path in sorted(folder.glob("*.py"))}
    return digest(weights, code)


def _load(folder: Path, spec: Model) -> Any:
    from kdbench.models.model import load, pick_device

    return load(
        folder,
        pick_device(),
        own_dtype=True,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
    )


def one_file(given: Path, folder: Path, spec: Model) -> Path:
    """The checkpoint itself, or a copy where it is cut, in several files or pickled.

    Every later stage reads one `model.safetensors`.
    """
    files = weights_files(given, pickle=spec.pickle)
    if [path.name for path in files] == ["model.safetensors"] and not spec.keep_layers:
        return given
    from kdbench.models.model import keep_layers, read, save

    pickled = any(path.suffix == ".bin" for path in files)
    model = read(given, "auto", pickle=pickled, trust_remote_code=spec.trust_remote_code)
    if spec.keep_layers:
        keep_layers(model, spec.keep_layers)
    with store.new_folder(folder) as temporary:
        save(model, temporary)
        _copy_tokenizer(given, temporary)
    return folder


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def cache_teacher(artifacts: Artifacts) -> None:
    """Runs the teacher once over train and dev and keeps its hidden states."""
    folder = artifacts.teacher_cache
    with store.locked(folder.with_suffix(".lock")):
        if folder.exists():
            return
        _fill_cache(artifacts, artifacts.encoded, ["train", "dev"], folder)


def answer_with_teacher(artifacts: Artifacts, shared: Shared) -> None:
    """Samples the teacher's own response to every training prompt, once for all runs."""
    folder = artifacts.teacher_answers(shared.backend, shared.backend_version)
    with store.locked(folder.with_suffix(".lock")):
        if folder.exists():
            return
        suite, teacher = artifacts.suite, artifacts.model("teacher") / "model"
        generator = open_generator(shared.backend, artifacts.sequence_length)
        generator.load(teacher, trust_remote_code=suite.teacher.trust_remote_code)
        gold = Encoded.load(artifacts.encoded / "train.safetensors")
        prompts = [gold.prompt(row) for row in range(len(gold))]
        end = end_id(artifacts.tokenizer)
        answers = generator.generate(
            prompts,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=suite.decoding.max_new_tokens,
            seeds=[derive("teacher answers", row) for row in range(len(prompts))],
        )
        generator.close()
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = [*answer.token_ids, *([end] if answer.finish == "stop" else [])]
            rows.append((prompt, ids[: suite.data.max_length - len(prompt)]))
        with seal.sealed_folder(folder) as temporary:
            Encoded.of(rows).save(temporary / "train.safetensors")


def cache_answers(artifacts: Artifacts, shared: Shared) -> None:
    """Runs the teacher once over its own responses and keeps its hidden states."""
    folder = artifacts.teacher_answers(shared.backend, shared.backend_version)
    with store.locked(folder.with_suffix(".lock")):
        if not (folder / "cache").exists():
            _fill_cache(artifacts, folder, ["train"], folder / "cache")


def _fill_cache(artifacts: Artifacts, source: Path, names: list[str], folder: Path) -> None:
    """Keeps the teacher's hidden states on `<name>.safetensors` in the folder `source`."""
    from kdbench.head.teacher import fill

    model = _load(artifacts.model("teacher") / "model", artifacts.suite.teacher)
    splits = {name: Encoded.load(source / f"{name}.safetensors") for name in names}
    fill(model, artifacts.vocabulary, splits, folder)


def _make_tokenizer(artifacts: Artifacts) -> None:
    if artifacts.tokenizer.exists():
        return
    suite = artifacts.suite
    with seal.sealed_folder(artifacts.tokenizer) as folder:
        if artifacts.tokenizer_source is not None:
            _copy_tokenizer(artifacts.tokenizer_source, folder)
        elif suite.tokenizer.vocabulary is not None:
            train_tokenizer(
                artifacts.records(suite.data.teacher or suite.data.train),
                folder,
                vocabulary=suite.tokenizer.vocabulary,
                frame_tokens=suite.tokenizer.frame_tokens,
            )


def _build(artifacts: Artifacts, role: Role, init_seed: int, folder: Path) -> None:
    from kdbench.models.model import build, save

    architecture = artifacts.spec_of(role).architecture
    assert architecture is not None
    model = build(
        architecture,
        artifacts.vocabulary,
        end_id(artifacts.tokenizer),
        seed_key=artifacts.seed_key(role, init_seed),
    )
    with store.new_folder(folder) as temporary:
        save(model, temporary)
        _copy_tokenizer(artifacts.tokenizer, temporary)


def _fit(
    artifacts: Artifacts,
    role: Role,
    init_seed: int,
    start: Path,
    micro_batch: int,
    progress: Progress,
) -> None:
    spec = artifacts.spec_of(role)
    assert spec.fit is not None
    job = Job(
        variant=parse("sft"),
        seed_key=artifacts.seed_key(role, init_seed),
        seed=0,
        recipe=spec.fit,
        loss=Loss(),
        diagnostics=artifacts.suite.diagnostics,
        initial=Weights(start, trust_remote_code=spec.trust_remote_code),
        train=artifacts.encoded / f"{artifacts.split_of(role)}.safetensors",
        dev=artifacts.encoded / "dev.safetensors",
        vocabulary=artifacts.vocabulary,
        max_new_tokens=artifacts.suite.decoding.max_new_tokens,
        max_length=artifacts.suite.data.max_length,
        out=artifacts.model(role, init_seed),
        micro_batch=micro_batch,
        train_rows=spec.fit_rows,
        lora=spec.lora,
        gradient_checkpointing=spec.gradient_checkpointing,
    )
    train(job, progress)
