"""YAML as people mean it: the words and numbers of YAML 1.2, each key once, and within limits.

PyYAML reads YAML 1.1, in which `010` is 8, `1:30` is 90, `no` is false and `1e-3` is a text, and of
two equal keys the last one wins.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel

from kdbench.base.errors import UserError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Keys and values together, a value counted wherever an alias repeats it."""
MAX_DIGITS = 40
"""Characters of a number."""

Lines = Mapping[tuple[str, ...], str]
"""`file:line` of every field that is written somewhere."""

_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_WORDS = {
    "tag:yaml.org,2002:null": re.compile(r"null|Null|NULL|~|"),
    "tag:yaml.org,2002:bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "tag:yaml.org,2002:merge": re.compile(r"<<"),
}


_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class _RefusedError(yaml.MarkedYAMLError):
    """It is YAML, and not taken."""


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2, without a key twice."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _TAGS
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key has to be a word or a number")
            if key.value in seen:
                raise _error(key, f"'{key.value[:40]}' is written twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = node.value
        if len(text) > MAX_DIGITS:
            raise _error(node, f"a number of {len(text)} characters; at most {MAX_DIGITS}")
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes texts which are numbers in YAML 1.2 alone."""


for _tag, _pattern in {**_NUMBERS, **_WORDS}.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern.pattern})$"), None)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern.pattern})$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def read_yaml_file(path: Path) -> tuple[Any, Lines]:
    """The value that a file in UTF-8 holds, and the lines of its fields.

    Raises:
        UserError: see `read_yaml`; or the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8 ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return read_yaml(text, str(path))


def read_yaml(text: str, where: str) -> tuple[Any, Lines]:
    """The value that a YAML text holds, and the lines of its fields.

    Args:
        text: of one document.
        where: what messages call it, a path as a rule.

    Raises:
        UserError: it is not YAML, a key stands twice in a mapping, it refers to itself, or it is
            larger or more deeply nested than any file that kdbench reads; with the line.
    """
    try:
        _check_size(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            tree = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        kind = "" if isinstance(error, _RefusedError) else "not YAML: "
        raise UserError(f"{where}:{line}: {kind}{error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}:1: not YAML: {error}") from error
    lines: dict[tuple[str, ...], str] = {}
    _collect_lines(node, (), where, lines)
    return tree, lines


Read = TypeVar("Read", bound=BaseModel)


def validated(model: type[Read], tree: Any) -> Read:
    """A model from what a YAML or JSON file holds.

    JSON in strict mode: a list is a tuple, and no text, `true` or `1.0` is a whole number.

    Raises:
        pydantic.ValidationError: the content does not fit.
    """
    return model.model_validate_json(json.dumps(tree), strict=True)


def dump_yaml(tree: Any) -> str:
    """A value as YAML that every reader of 1.1 and of 1.2 reads alike."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_size(text: str) -> None:
    """Refuses what would take memory or time, from the parser's events: nothing is built yet."""
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters; at most {MAX_CHARACTERS}")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise _error(event, f"*{event.anchor} stands inside itself")
            total += sizes.get(event.anchor or "", 0)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > MAX_DEPTH:
                raise _error(event, f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before + 1
        if total > MAX_VALUES:
            raise _error(event, f"more than {MAX_VALUES} values, aliases counted as often as used")


def _error(at: Any, problem: str) -> _RefusedError:
    return _RefusedError(problem=problem, problem_mark=at.start_mark)


def _collect_lines(
    node: yaml.Node | None, at: tuple[str, ...], where: str, lines: dict[tuple[str, ...], str]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*at, key.value)] = f"{where}:{key.start_mark.line + 1}"
            _collect_lines(value, (*at, key.value), where, lines)
