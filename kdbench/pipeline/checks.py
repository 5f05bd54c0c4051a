"""Whether a suite's models fit together and can be loaded and served, before anything runs."""

from collections.abc import Mapping
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.config.schema import Model
from kdbench.models.size import empty_model, head_dim, positions
from kdbench.models.weights import read_config
from kdbench.pipeline.artifacts import Artifacts, Role


def check_models(artifacts: Artifacts, backend: str) -> None:
    """Refuses, before anything runs, models that do not fit together or cannot be served.

    Raises:
        UserError: a folder is missing or incomplete, its weights are pickled or it needs code of
            its own and the suite does not say so, tokenizers differ, the tokenizer has no chat
            template that the suite can use or more tokens than the models, sequences are longer
            than the models' positions, the output head or the layers to adapt are not such as can
            be trained, or vLLM cannot serve the head dimension.
    """
    from kdbench.data.tokenizer import read_frame
    from kdbench.generate import check_head_dim

    suite = artifacts.suite
    if artifacts.tokenizer_source is not None:
        _vocabulary(artifacts.tokenizer_source)
    paths = {}
    roles: tuple[Role, ...] = ("teacher", "student")
    for role in roles:
        given = artifacts.checkpoint(role)
        if given is not None:
            paths[role] = given
            _check_end_token(given, artifacts.tokenizer_source)
        try:
            if backend == "vllm":
                check_head_dim(_head_dim(artifacts.spec_of(role), given))
            _check_positions(artifacts, role, given)
        except UserError as error:
            raise UserError(f"{role}: {error}") from error
    if len(paths) == 2:
        check_same_vocabulary(paths["teacher"], paths["student"])
    if suite.tokenizer.path:
        for role, path in paths.items():
            if _vocabulary(path) != _vocabulary(Path(suite.tokenizer.path)):
                raise UserError(
                    f"{role} {path} and tokenizer.path {suite.tokenizer.path} have different "
                    "tokens; leave tokenizer.path out, or give the models' own"
                )
    if artifacts.tokenizer_source is not None:
        read_frame(artifacts.tokenizer_source, suite.data)
        for role, path in paths.items():
            _check_shape(artifacts.spec_of(role), role, path, _size(artifacts.tokenizer_source))


def _check_positions(artifacts: Artifacts, role: Role, given: Path | None) -> None:
    """Refuses sequences that are longer than a model's positions."""
    from kdbench.models.model import POSITIONS

    data, new = artifacts.suite.data, artifacts.suite.decoding.max_new_tokens
    has: int | None = POSITIONS
    if given is not None:
        trusted = artifacts.spec_of(role).trust_remote_code
        has = positions(read_config(given, trust_remote_code=trusted))
    if has is None:
        return
    for needed, fields in (
        (data.max_length, "data.max_length, prompt and answer in training"),
        (artifacts.sequence_length, f"data.max_prompt {data.max_prompt} + max_new_tokens {new}"),
    ):
        if needed > has:
            raise UserError(
                f"{given or 'its architecture'}: the model has {has} positions, and the suite asks "
                f"for sequences of {needed} tokens ({fields}): shorten data.max_prompt, "
                "data.max_length or decoding.max_new_tokens, or take a model with more positions"
            )


def _check_shape(spec: Model, role: Role, folder: Path, vocabulary: int) -> None:
    """Refuses a head or layers that training cannot use, as the model is without its weights."""
    config = read_config(folder, trust_remote_code=spec.trust_remote_code)
    has = int(getattr(config, "vocab_size", None) or vocabulary)
    if has < vocabulary:
        raise UserError(
            f"{role}: {folder} has {has} output ids, the tokenizer {vocabulary}: were tokens added "
            "to the tokenizer? model.resize_token_embeddings makes room for them"
        )
    if spec.trust_remote_code:  # its code runs in a worker, and not here
        return
    from kdbench.models.model import adapt, head_of

    empty = empty_model(folder, spec)
    try:
        head_of(empty, vocabulary)
        if spec.lora is not None:
            adapt(empty, spec.lora, seed_key="")
    except UserError as error:
        raise UserError(f"{role}: {folder}: {error}") from error


def _size(tokenizer: Path) -> int:
    from kdbench.data.ids import vocabulary_size
    from kdbench.data.tokenizer import load_tokenizer

    return vocabulary_size(load_tokenizer(tokenizer))


def _check_end_token(folder: Path, tokenizer: Path | None) -> None:
    """Refuses a model that stops generating at another token than its responses end with."""
    from kdbench.data.tokenizer import end_id, stated_ends

    ends = stated_ends(folder)
    if not ends or tokenizer is None:
        return
    ours = end_id(tokenizer)
    if ours not in ends:
        stops = ", ".join(map(str, sorted(ends)))
        raise UserError(
            f"{folder}: generation ends at id {stops} (eos_token_id), but "
            f"responses would be trained to end with id {ours} of {tokenizer}; set eos_token_id"
        )


def _head_dim(spec: Model, folder: Path | None) -> int:
    if spec.architecture is not None:
        return spec.architecture.width // spec.architecture.heads
    assert folder is not None
    return head_dim(read_config(folder, trust_remote_code=spec.trust_remote_code))


def check_same_vocabulary(teacher: Path, student: Path) -> None:
    """Refuses two tokenizers that do not give every token the same id, naming one token."""
    first, second = _vocabulary(teacher), _vocabulary(student)
    if first != second:
        raise UserError(
            f"teacher {teacher} ({len(first)} tokens) and student {student} ({len(second)} tokens) "
            f"have different tokenizers{_example(first, second)}; the objectives here compare "
            "distributions over one vocabulary, and none of them supports two"
        )


def _example(first: Mapping[str, int], second: Mapping[str, int]) -> str:
    """A token that tells two vocabularies apart."""
    ids = {token: (first.get(token), second.get(token)) for token in {*first, *second}}
    token = min(token for token, (one, other) in ids.items() if one != other)
    one, other = ("no id" if found is None else f"id {found}" for found in ids[token])
    return f" (for example {token!r}: {one} and {other})"


def _vocabulary(folder: Path) -> dict[str, int]:
    """The tokens of a folder's tokenizer and their ids, added tokens among them."""
    from kdbench.data.tokenizer import load_tokenizer

    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder}: no tokenizer.json; where the tokenizer lies there in another form, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(COPY) writes it into a copy of "
            "the folder, to be given as the model's path"
        )
    return load_tokenizer(folder).get_vocab()
