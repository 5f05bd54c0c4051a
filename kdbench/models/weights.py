"""Where a model's weights lie: a folder, a GGUF file's copy, or the hub's own cache."""

from functools import cache
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError, first_line
from kdbench.base.paths import check_below, inside
from kdbench.base.store import read_json
from kdbench.config.schema import Model
from kdbench.models.gguf import dequantised
from kdbench.models.remote_code import check_code, code_files

DESCRIBED = ["*.json", "*.jinja", "*.model", "*.txt"]
"""Configurations and tokenizer; small."""
SAFE = ["*.safetensors"]
PICKLED = ["*.bin"]
CODE = ["*.py"]


def checkpoint(model: Model, role: str) -> Path:
    """The folder of a model's files, downloaded where need be.

    The hub's library keeps what it downloads in its own cache; files that are missing there are
    fetched, and those that are there are not asked for again.

    Raises:
        UserError: the folder is no checkpoint, or the model cannot be had; it holds pickled
            weights or Python code, and the suite does not ask for them by name; or there is no such
            layer to keep.
    """
    if model.path:
        folder = Path(model.path)
    else:
        if model.revision:
            check_below(model.revision, f"{role}.revision")
        folder = dequantised(model.gguf, role) if model.gguf else _downloaded(model, role)
    if not (folder / "config.json").is_file():
        raise UserError(f"{role}: {folder}: no model folder (config.json is missing)")
    weights_files(folder, pickle=model.pickle)
    check_code(folder, model, role)
    _check_layers(folder, model, role)
    return folder


def at_hand(model: Model) -> bool:
    """Whether the model can be read without a network."""
    if not model.hub or model.path:
        return True
    return _cached(model) is not None


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint's language model, as transformers reads it.

    Raises:
        UserError: transformers cannot read it.
    """
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # what a configuration divides by may be 0
        raise UserError(
            f"{folder / 'config.json'}: transformers cannot read it: {first_line(error)}"
        ) from error
    return found.get_text_config()


def weights_files(folder: Path, *, pickle: bool = False) -> list[Path]:
    """The files that hold a checkpoint's weights.

    Raises:
        UserError: there are none, or only pickled ones and `pickle` is not set; or one of those
            that the checkpoint's index names is missing.
    """
    if found := sorted(folder.glob("*.safetensors")):
        _check_whole(folder, "model.safetensors")
        return found
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if pickled and pickle:
        _check_whole(folder, "pytorch_model.bin")
        return pickled
    if pickled:
        raise UserError(
            f"{folder}: no safetensors weights but pickled ones ({pickled[0].name}); loading a "
            "pickle can run any code. If you trust its source, say `pickle: true` beside the model "
            "(--set teacher.pickle=true), or convert it once with save_pretrained"
        )
    raise UserError(f"{folder}: no safetensors weights")


def _check_whole(folder: Path, name: str) -> None:
    """Refuses a checkpoint that lacks some of its files, as after a copy that broke off."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return
    named = set(read_json(index)["weight_map"].values())
    places = {file: inside(folder, file, str(index), links=True) for file in named}
    if missing := sorted(file for file, place in places.items() if not place.is_file()):
        raise UserError(f"{folder}: {', '.join(missing)} is missing, which {index.name} names")


def _check_layers(folder: Path, model: Model, role: str) -> None:
    if model.keep_layers:
        config = read_config(folder, trust_remote_code=model.trust_remote_code)
        layers = int(getattr(config, "num_hidden_layers", None) or 0)
        if not layers:
            raise UserError(f"{role}.keep_layers: {folder}: config.json names no number of layers")
        if model.keep_layers[-1] >= layers:
            raise UserError(
                f"{role}.keep_layers: {folder} has {layers} layers, 0 to {layers - 1}; there is no "
                f"layer {model.keep_layers[-1]}"
            )


@cache
def _downloaded(model: Model, role: str) -> Path:
    folder = _cached(model)
    if folder is None:
        code = CODE if model.trust_remote_code else []
        folder = _fetch(model, [*DESCRIBED, *SAFE, *code], role)
    if not list(folder.glob("*.safetensors")):
        # Which files there are is known now; pickles are not even downloaded unless asked for.
        if not model.pickle:
            raise UserError(
                f"{role}: {model.hub} has no safetensors weights; pickled ones are not downloaded, "
                "since loading a pickle can run any code. If you trust its source, "
                f"--set {role}.pickle=true (or `pickle: true` in the suite)"
            )
        folder = _fetch(model, PICKLED, role)
    return folder


def _cached(model: Model) -> Path | None:
    """What lies in the hub's cache of this revision, if all of its weights do."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    code = CODE if model.trust_remote_code else []  # not downloaded before it is trusted
    try:
        found = snapshot_download(
            model.hub,
            revision=model.revision or None,
            allow_patterns=[*DESCRIBED, *SAFE, *code],
            ignore_patterns=["*/*"],
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    folder = Path(found)
    try:
        weights_files(folder, pickle=True)
    except UserError:
        return None
    if not (folder / "config.json").is_file():
        return None
    named = code_files(folder) if code else []
    return folder if all((folder / name).is_file() for name in named) else None


def _fetch(model: Model, patterns: list[str], role: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    name = model.hub + (f"@{model.revision}" if model.revision else "")
    try:
        return Path(
            snapshot_download(
                model.hub,
                revision=model.revision or None,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
            )
        )
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{role}: {name}: the hub has no such revision of the model") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{role}: {name} is gated: accept its licence on the hub and log in with `hf auth "
            f"login`, or --set {role}.path=FOLDER"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{role}: {name}: there is no such model on the hub (or it is private); an id is "
            "owner/name"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{role}: {name} is no model id of the hub: {error}") from error
    except Exception as error:  # the library passes on those of its HTTP client, which changes
        raise UserError(
            f"{role}: {name} could not be loaded from the hub ({type(error).__name__}: "
            f"{first_line(error)}). Without a network, --set {role}.path=FOLDER reads a local copy"
        ) from error
