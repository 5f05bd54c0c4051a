"""Declaring objectives: the decorators that register them, and names for variants and methods."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kdbench.base.errors import UserError
from kdbench.runs.folder import REFERENCES
from kdbench.variants.objective import (
    ALIASES,
    GROUPS,
    LR,
    METHODS,
    NAME,
    NAMES,
    OBJECTIVES,
    PRESETS,
    Kind,
    Objective,
    Preset,
    Zero,
)
from kdbench.variants.parameters import Value, declare

if TYPE_CHECKING:
    from torch import Tensor

Zeros = Sequence[Zero] | None
Infinite = Zeros | Callable[[Mapping[str, Any]], Zeros]
"""At whose zeros a value is +inf, perhaps depending on the parameters; None: not declared."""

PerToken = Callable[..., "Tensor"]
Made = TypeVar("Made", bound=Callable[..., Any])


def divergence(
    name: str,
    *,
    source: str,
    aliases: Sequence[str] = (),
    group: str = "more",
    grid: Mapping[str, Sequence[Value]] | None = None,
    check: Callable[[Mapping[str, Any]], str | None] | None = None,
    infinite_where: Infinite = None,
    **parameters: object,
) -> Callable[[PerToken], PerToken]:
    """Registers `fn(teacher_logp [N, V], student_logp [N, V], **params) -> per-token values [N]`.

    Args:
        name: what the command line and the tables call it.
        source: the paper, with its arXiv number and equation.
        aliases: other names for it.
        group: `core` or `more`, a set that `--objectives` can name.
        grid: values of some parameters; the bare name on the command line expands to them.
        check: given the resolved parameters, says why a combination is refused, or None.
        infinite_where: at ids where only the `teacher`'s or only the `student`'s probability is
            zero, is the value +inf? The tests hold an objective to it. None: not declared.
        **parameters: the defaults; `number(0.1, "[0, 1)")` and `choice(...)` also give the range.
    """
    return _register(
        name, "divergence", source, aliases, group, True, grid, check, infinite_where, parameters
    )


def labelled(
    name: str,
    *,
    source: str,
    group: str = "more",
    uses_teacher: bool = True,
    check: Callable[[Mapping[str, Any]], str | None] | None = None,
    infinite_where: Infinite = None,
    **parameters: object,
) -> Callable[[PerToken], PerToken]:
    """Registers an objective that also takes `labels=`, the token ids [N].

    One that declares `uses_teacher=False` is given the student's own log-probabilities, detached,
    in place of the teacher's, and no teacher is run for it. The other arguments are `divergence`'s.
    """
    return _register(
        name,
        "labelled",
        source,
        (),
        group,
        uses_teacher,
        None,
        check,
        infinite_where,
        parameters,
    )


def stateful(
    name: str,
    *,
    source: str,
    group: str = "more",
    check: Callable[[Mapping[str, Any]], str | None] | None = None,
    infinite_where: Infinite = None,
    **parameters: object,
) -> Callable[[Made], Made]:
    """Registers a class whose instances are a `State`: an objective that follows the training.

    The class is called with the parameters by keyword, once a trial. The other arguments are
    `divergence`'s.
    """
    return _register(
        name, "stateful", source, (), group, True, None, check, infinite_where, parameters
    )


def preset(name: str, expression: str, *, source: str, defined_at: str) -> None:
    """Names a variant that a paper or a released script uses; `defined_at` is the caller's file."""
    _claim(name, defined_at)
    PRESETS.add(name, Preset(name, expression, source), defined_at)


def method(name: str, expression: str, *, source: str, defined_at: str) -> None:
    """Names an objective on a source, with a paper's defaults; tables use the name."""
    _claim(name, defined_at)
    METHODS.add(name, Preset(name, expression, source), defined_at)


def _register(
    name: str,
    kind: Kind,
    source: str,
    aliases: Sequence[str],
    group: str,
    uses_teacher: bool,
    grid: Mapping[str, Sequence[Value]] | None,
    check: Callable[[Mapping[str, Any]], str | None] | None,
    infinite_where: Infinite,
    parameters: Mapping[str, object],
) -> Callable[[Made], Made]:
    declared = {key: declare(value) for key, value in parameters.items()}
    if LR in declared:
        raise UserError(
            f"{name} declares a parameter named {LR}: that is the harness's, {name}[{LR}=0.001] "
            "sets the learning rate of the training; give the parameter another name"
        )

    def register(function: Made) -> Made:
        body = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        code = body.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        objective = Objective(
            name=name,
            kind=kind,
            function=function,
            parameters=declared,
            source=source,
            description=inspect.getdoc(function) or "",
            defined_at=where,
            group=group,
            uses_teacher=uses_teacher,
            grid={key: tuple(values) for key, values in (grid or {}).items()},
            check=check,
            infinite_where=_as_function(infinite_where),
        )
        for word in (name, *aliases):
            _claim(word, where)
        OBJECTIVES.add(name, objective, where)
        ALIASES.update(dict.fromkeys(aliases, name))
        return function

    return register


def _claim(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name in (*REFERENCES, *GROUPS):
        raise UserError(
            f"'{name}' cannot be an objective's name: it is lower-case words joined by '-', not "
            f"one of {', '.join((*GROUPS, *REFERENCES))}"
        )
    NAMES.add(name, name, where)


def _as_function(
    declared: Infinite,
) -> Callable[[Mapping[str, Any]], frozenset[Zero] | None]:
    def infinite_where(params: Mapping[str, Any]) -> frozenset[Zero] | None:
        zeros = declared(params) if callable(declared) else declared
        return None if zeros is None else frozenset(zeros)

    return infinite_where
