"""Parameters: how they are declared, and how `name[key=value,...]@name[key=value,...]` is split.

A parameter reads its value from text (command line) or from Python, refuses what is out of range,
and writes it back in one canonical way, so that `-5` and `-5.0` are the same variant.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kdbench.base.errors import UserError
from kdbench.base.registry import unknown

MAX_TEXT = 100_000
"""Characters of a list of variants."""
MAX_EXPRESSION = 2_000
"""Characters of one variant."""
MAX_NESTING = 8
"""Brackets within brackets."""
MAX_DIGITS = 40
"""Characters of a number, as in a suite."""

Value = object
"""A resolved parameter: float, bool, str, or the `Variant` of an inner divergence."""


class Parameter(Protocol):
    """What an objective's declaration says about one of its parameters."""

    @property
    def default(self) -> Value: ...

    def read(self, value: object) -> Value:
        """The resolved value, or `ValueError` with what would have been legal."""

    def write(self, value: Value) -> str:
        """Canonical text that `read` turns back into the value."""

    def describe(self) -> str:
        """The legal values, for a person."""


@dataclass(frozen=True)
class Number:
    """A finite real number within an interval."""

    default: float | None
    interval: str = "(-inf, inf)"
    search: str = ""
    """The finite part of the interval in which tuning looks; the interval itself where left out."""

    def read(self, value: object) -> float:
        if isinstance(value, str) and len(value) > MAX_DIGITS:
            raise ValueError(f"has {len(value)} characters; a number has at most {MAX_DIGITS}")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"is not a number; it lies in {self.interval}") from None
        left, low, high, right = _parts(self.interval)
        above = number >= low if left == "[" else number > low
        below = number <= high if right == "]" else number < high
        if isinstance(value, bool) or not math.isfinite(number) or not (above and below):
            raise ValueError(f"is outside its range {self.interval}")
        return number + 0.0  # -0.0 and 0.0 are one value

    def write(self, value: Value) -> str:
        number = float(value)  # type: ignore[arg-type]
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)

    def describe(self) -> str:
        return self.interval

    def searched(self) -> tuple[float, float] | None:
        """Where tuning looks, or None where that is not finite."""
        _, low, high, _ = _parts(self.search or self.interval)
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    default: str
    options: tuple[str, ...]

    def read(self, value: object) -> str:
        if value not in self.options:
            raise ValueError(f"is not one of {', '.join(self.options)}")
        return str(value)

    def write(self, value: Value) -> str:
        return str(value)

    def describe(self) -> str:
        return " | ".join(self.options)


@dataclass(frozen=True)
class Flag:
    """On or off."""

    default: bool

    def read(self, value: object) -> bool:
        words = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
        text = str(value).lower()
        if text not in words:
            raise ValueError("is neither true nor false")
        return words[text]

    def write(self, value: Value) -> str:
        return "true" if value else "false"

    def describe(self) -> str:
        return "true | false"


@dataclass(frozen=True)
class Inner:
    """Another registered divergence, with parameters of its own."""

    expression: str
    resolve: Callable[[str], Any]
    """Turns an expression into a `Variant` that is a plain divergence, or raises `UserError`."""

    @property
    def default(self) -> Value:
        return self.resolve(self.expression)

    def read(self, value: object) -> Value:
        return self.resolve(str(value))

    def write(self, value: Any) -> str:
        return str(value.full_name)

    def describe(self) -> str:
        return "any registered divergence"


def declare(value: object) -> Parameter:
    """The declaration that a plain default stands for: a number without bounds, or a flag.

    Raises:
        UserError: a default of another type (it needs `choice(...)` or `inner(...)`), or one that
            is outside its own range.
    """
    if isinstance(value, Number):
        try:
            value.read(value.default)
            value.searched()
        except ValueError as error:
            raise UserError(f"a default of {value.default} {error}") from error
    if isinstance(value, Number | Choice | Flag | Inner):
        return value
    if isinstance(value, bool):
        return Flag(value)
    if isinstance(value, int | float):
        return Number(float(value))
    raise UserError(
        "a parameter's default is a number, true or false, number(), choice() or inner(), "
        f"not {value!r}"
    )


def resolve(
    owner: str, declared: Mapping[str, Parameter], given: Mapping[str, object]
) -> dict[str, Value]:
    """The values of all parameters of `owner`: those given, and the others' defaults.

    Raises:
        UserError: an unknown parameter, or a value of the wrong type or out of range.
    """
    for name in given:
        if name not in declared:
            raise UserError(
                unknown(f"parameter of {owner}", name, list(declared))
                if declared
                else f"{owner} has no parameters, so '{name}' cannot be set"
            )
    params: dict[str, Value] = {}
    for name, parameter in declared.items():
        try:
            params[name] = parameter.read(given[name]) if name in given else parameter.default
        except ValueError as error:
            raise UserError(f"{owner}: {name}={str(given[name])[:MAX_DIGITS]} {error}") from error
    return params


def written(
    owner: str, declared: Mapping[str, Parameter], params: Mapping[str, Value], *, defaults: bool
) -> str:
    """`owner[name=value,...]`, canonical; parameters at their defaults only where asked for.

    What is None is left out.
    """
    inside = ",".join(
        f"{name}={declared[name].write(value)}"
        for name, value in params.items()
        if value is not None and (defaults or value != declared[name].default)
    )
    return f"{owner}[{inside}]" if inside else owner


def split_list(text: str) -> list[str]:
    """Splits at the commas that stand outside brackets."""
    return [part for part in _split(text, ",") if part]


def split_at(expression: str) -> tuple[str, str | None]:
    """What stands before and behind the first `@` outside brackets, if there is one."""
    head, *behind = _split(expression, "@")
    return head, "@".join(behind) if behind else None


def split_expression(expression: str) -> tuple[str, dict[str, str]]:
    """The name and what is given in brackets behind it.

    Raises:
        UserError: broken brackets, an item that is no `parameter=value`, or one given twice.
    """
    if len(expression) > MAX_EXPRESSION:
        raise UserError(
            f"'{expression[:MAX_DIGITS]}...': {len(expression):,} characters; a variant has at "
            f"most {MAX_EXPRESSION:,}"
        )
    name, bracket, rest = expression.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise UserError(f"'{expression}': a variant is written name[parameter=value,...]")
    given: dict[str, str] = {}
    for item in split_list(rest[:-1]):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not value.strip():
            raise UserError(f"'{expression}': '{item}' is not parameter=value")
        if key in given:
            raise UserError(f"'{expression}': {key} is given twice")
        given[key] = value.strip()
    return name.strip(), given


def _split(text: str, separator: str) -> list[str]:
    if len(text) > MAX_TEXT:
        raise UserError(
            f"'{text[:MAX_DIGITS]}...': {len(text):,} characters; at most {MAX_TEXT:,} are read"
        )
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if depth < 0:
            break
        if depth > MAX_NESTING:
            raise UserError(f"'{text[:MAX_DIGITS]}...': brackets more than {MAX_NESTING} deep")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth != 0:
        raise UserError(f"'{text}': the brackets do not match")
    return [part.strip() for part in parts]


_INTERVAL = re.compile(r"([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])")


def _parts(interval: str) -> tuple[str, float, float, str]:
    match = _INTERVAL.fullmatch(interval)
    if match is None:
        raise UserError(
            f"'{interval}' is not an interval; write for example '(0, 1]' or '[0, inf)'"
        )
    left, low, high, right = match.groups()
    return left, float(low), float(high), right
