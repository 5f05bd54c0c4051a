"""Models that need Python code of their own: refused, unless the suite trusts it by name."""

from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.paths import inside
from kdbench.base.store import read_json
from kdbench.config.schema import Model

OWN_MODULES = "transformers_modules."
"""What transformers calls the modules that it makes of such code."""


def check_code(folder: Path, model: Model, role: str) -> None:
    """Refuses a checkpoint that needs its own code and may not run it, or lacks some of it.

    Raises:
        UserError: transformers does not know the architecture, and the suite does not trust the
            code or there is none; a file of it is missing; or it would come from another
            repository.
    """
    named, kind = code_files(folder), read_json(folder / "config.json").get("model_type")
    if not (named and model.trust_remote_code):
        from transformers import CONFIG_MAPPING, __version__

        if kind in CONFIG_MAPPING or not (named or kind):
            return  # transformers' own class is taken
        if named:
            raise UserError(_asks_for_trust(folder, named, model, role))
        raise UserError(
            f"{role}: {folder}: config.json has the model_type {kind}, which transformers "
            f"{__version__} does not know, and names no Python code of its own (auto_map)"
        )
    from transformers.dynamic_module_utils import get_relative_import_files

    for name in named:
        if "--" in name:
            raise UserError(
                f"{role}: {folder}: config.json takes its code from another repository ({name}), "
                "which nothing pins; copy those files beside it and name them there without "
                "`OWNER/NAME--`"
            )
        if not inside(folder, name, f"{role}: {folder}: auto_map", links=True).is_file():
            raise UserError(f"{role}: {folder}: {name} is missing, which config.json names")
        try:
            get_relative_import_files(folder / name)  # it reads them, and runs nothing
        except FileNotFoundError as error:
            lost = Path(error.filename).name
            raise UserError(f"{role}: {folder}: {lost} is missing, which {name} imports") from error


def code_files(folder: Path) -> list[str]:
    """The files that config.json names for classes of configurations and models.

    For whatever task: vLLM imports them all.
    """
    named: dict[str, str] = read_json(folder / "config.json").get("auto_map") or {}
    modules = {
        place.rpartition(".")[0]
        for key, place in named.items()
        if key == "AutoConfig" or key.startswith("AutoModel")
    }
    return sorted(f"{module}.py" for module in modules)


def forget_classes() -> None:
    """Makes transformers look anew for the classes of a model's own code.

    It finds them by the class of the configuration, which two models may share whose code differs.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    for known in (AutoModel._model_mapping, AutoModelForCausalLM._model_mapping):
        own = [key for key in known._extra_content if key.__module__.startswith(OWN_MODULES)]
        for key in own:
            del known._extra_content[key]


def _asks_for_trust(folder: Path, named: list[str], model: Model, role: str) -> str:
    place, pin = str(folder), ""
    if model.hub and not model.path:
        place = f"{model.hub}, revision {folder.name},"
        pin = f" --set {role}.revision={folder.name}"
    return (
        f"{role}: {place} needs the Python code that comes with it ({', '.join(named)}); it can do "
        "whatever you can do on this machine. If you have read it and trust it, say "
        f"`trust_remote_code: true` beside the model (--set {role}.trust_remote_code=true{pin})"
    )
