"""Finding a suite, reading its YAML, and saying file, line and field when something is wrong."""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.base.paths import inside
from kdbench.base.registry import module_folder, unknown
from kdbench.base.strict_yaml import Lines, read_yaml, read_yaml_file, validated
from kdbench.config.identity import canonical
from kdbench.config.schema import DEV, Suite

SUITES = "kdbench.suites"
"""The entry points of packages of suites, and of functions that make records."""


def load_suite(name_or_file: str, settings: Sequence[str] = ()) -> Suite:
    """An installed suite by name, or one by its file; with `field.path=value` settings in YAML."""
    path = _find(name_or_file)
    tree, lines = _read_yaml(path)
    origin: dict[tuple[str, ...], str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set {setting}: write field=value, for example --set recipe.lr=0.001"
            )
        location = tuple(key.strip().split("."))
        try:
            value, _ = read_yaml(text, "")
        except UserError as error:
            raise UserError(f"--set {setting}: {str(error).partition(': ')[2]}") from error
        _assign(tree, location, value, setting)
        origin[location] = f"--set {setting}"
    try:
        suite = validated(Suite, _without_nulls(tree))
    except ValidationError as error:
        raise UserError("\n".join(_explain(error, path, lines, origin))) from error
    if DEV in suite.data.evaluation:  # a tuning run's own suite, which is not read here, has it
        where = lines.get(("data", "evaluation", DEV), f"{path}:1")
        raise UserError(f"{where}: data.evaluation: {DEV} cannot name a set: tuning chooses on it")
    return suite


def installed_suites() -> dict[str, Path]:
    """Every suite that an installed package offers, by name."""
    found: dict[str, Path] = {}
    for point in entry_points(group=SUITES):
        for path in sorted(module_folder(point).glob("[!_]*.yaml")):
            found[path.stem] = path
    return found


def _find(name_or_file: str) -> Path:
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file)
        if not path.is_file():
            raise UserError(f"suite file {path}: no such file")
        return path
    known = installed_suites()
    if name_or_file not in known:
        message = unknown("suite", name_or_file, list(known))
        raise UserError(f"{message}; or give the path of a .yaml file")
    return known[name_or_file]


def _read_yaml(path: Path, including: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Lines]:
    """The fields of a file, on top of those of the file that it includes."""
    tree, lines = read_yaml_file(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}:1: a suite is a mapping of fields (name, data, teacher, ...)")
    if (name := tree.pop("include", None)) is None:
        return tree, lines
    where = lines["include",]
    included = inside(path.parent, str(name), f"{where}: include")
    if not included.is_file():
        raise UserError(f"{where}: include: {included}: no such file")
    if any(included.samefile(above) for above in (*including, path)):
        raise UserError(f"{where}: include: {included} includes itself")
    below, below_lines = _read_yaml(included, (*including, path))
    return _merged(below, tree), {**below_lines, **lines}


def _without_nulls(tree: Any) -> Any:
    """Null is a field's default: `--set data.train.sha256=` takes back what a suite says."""
    if isinstance(tree, dict):
        return {name: _without_nulls(value) for name, value in tree.items() if value is not None}
    return tree


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Fields of `above` take the place of those below; mappings are merged."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _assign(tree: dict[str, Any], location: tuple[str, ...], value: Any, setting: str) -> None:
    branch: Any = tree
    for name in location[:-1]:
        if branch.get(name) is None:
            branch[name] = {}
        branch = branch[name]
        if not isinstance(branch, dict):
            raise UserError(f"--set {setting}: {name} has no fields")
    branch[location[-1]] = value


def _explain(
    error: ValidationError, path: Path, lines: Lines, origin: Mapping[tuple[str, ...], str]
) -> list[str]:
    messages = []
    for item in error.errors():
        location = tuple(str(part) for part in item["loc"])
        field = ".".join(location) or "suite"
        given = [
            text
            for place, text in origin.items()
            if all(one == other for one, other in zip(place, location, strict=False))
        ]
        above = [location[:n] for n in range(len(location), 0, -1)]
        where = [*given, *(lines[place] for place in above if place in lines), f"{path}:1"][0]
        message = str(item["msg"]).removeprefix("Value error, ")
        if not isinstance(item["input"], dict):
            message += f", not {canonical(item['input'])[:60]}"
        if item["type"] == "extra_forbidden":
            message = unknown("field", location[-1], _known_fields(location[:-1]))
        elif item["type"] == "missing":
            message = "this field is missing"
        elif item["type"] == "tuple_type":
            text = item["input"] if isinstance(item["input"], str) else canonical(item["input"])
            message = f"a list stands in brackets: [{text}]"
            message += f" (--set '{field}=[{text}]')" if where.startswith("--set") else ""
        messages.append(f"{where}: {field}: {message}")
    return messages


def _known_fields(location: tuple[str, ...]) -> list[str]:
    """The field names of the model that stands at a location of the suite."""
    model: Any = Suite
    for name in location:  # that of an evaluation set is no field: its split was found before it
        annotation = getattr(model.model_fields.get(name), "annotation", None)
        options = (annotation, *getattr(annotation, "__args__", ()))
        model = next((option for option in options if hasattr(option, "model_fields")), model)
    return list(model.model_fields)
