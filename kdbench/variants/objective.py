"""What an objective is: one function of two log-distributions, and the decorators that declare it.

A *variant* is an objective with its parameters fixed; it is what runs, is named and is ranked.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from kdbench.base.code import code_digest
from kdbench.base.errors import UserError
from kdbench.base.registry import REFERENCES, Registry
from kdbench.variants.parameters import Number, Parameter, Value, declare

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["divergence", "labelled", "stateful"]
Zero = Literal["teacher", "student"]
"""Whose probability is zero, at an id where the other's is not."""
Zeros = Sequence[Zero] | None
Infinite = Zeros | Callable[[Mapping[str, Any]], Zeros]
"""At whose zeros a value is +inf, perhaps depending on the parameters; None: not declared."""
Check = Callable[[Mapping[str, Any]], str | None]
"""Says why a combination of parameters is refused, or None."""
Made = TypeVar("Made", bound=Callable[..., Any])

GROUPS = ("all", "core", "more", "methods")
"""Words that stand for several objectives."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LR = "lr"
LEARNING_RATE = {LR: Number(None, "(0, inf)")}
"""Written among an objective's parameters, but the harness's: the peak of the learning rate."""


@dataclass(frozen=True, eq=False)
class Objective:
    """A registered objective: the function and everything declared about it."""

    name: str
    kind: Kind
    function: Callable[..., Any]
    """Gives the per-token values; of a stateful objective, the class that makes its `State`."""
    parameters: Mapping[str, Parameter]
    source: str
    description: str
    defined_at: str
    registered_in: str
    """The file that declares it, which may have imported the function."""
    group: str
    uses_teacher: bool
    grid: Mapping[str, tuple[Value, ...]]
    check: Check | None
    infinite_where: Infinite

    @cached_property
    def code(self) -> str:
        """Digest of its file and of the local modules that this imports, as this process has them.

        See `kdbench.base.code`.
        """
        return code_digest(*map(Path, (self.registered_in, self.defined_at.rpartition(":")[0])))


class State(Protocol):
    """An objective that changes from step to step: what `@stateful` decorates makes one."""

    def per_token(self, teacher_logp: "Tensor", student_logp: "Tensor") -> "Tensor":
        """Values [N] as things stand."""

    def after_step(self, loss: float, progress: float) -> None:
        """Told the loss of the global batch and the share of the steps done, in (0, 1]."""

    def state_dict(self) -> dict[str, float]:
        """What changes, for the checkpoint."""

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from what `state_dict` gave."""


@dataclass(frozen=True, eq=False)
class Source:
    """A registered source of sequences.

    Attributes:
        paper: where it comes from.
        samples: sequences are sampled from the student while it trains.
        teacher_answers: it needs the teacher's own responses to the training prompts.
        dropout: the student trains with the dropout that it has.
    """

    name: str
    description: str
    paper: str = ""
    samples: bool = False
    teacher_answers: bool = False
    dropout: bool = True
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A name for a variant that a paper or a released script uses."""

    name: str
    expression: str
    source: str


OBJECTIVES: Registry[Objective] = Registry("objective")
SOURCES: Registry[Source] = Registry("source")
ALIASES: dict[str, str] = {}
NAMES: Registry[str] = Registry("objective")
"""Every word that means something: objectives, aliases, presets."""
PRESETS: Registry[Preset] = Registry("preset")
METHODS: Registry[Preset] = Registry("method")
"""Published methods: an objective, a source and the paper's defaults."""


def divergence(
    name: str,
    *,
    source: str,
    aliases: Sequence[str] = (),
    group: str = "more",
    grid: Mapping[str, Sequence[Value]] | None = None,
    check: Check | None = None,
    infinite_where: Infinite = None,
    **parameters: Any,
) -> Callable[[Made], Made]:
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
        "divergence",
        name,
        source,
        aliases=aliases,
        group=group,
        grid=grid,
        check=check,
        infinite_where=infinite_where,
        **parameters,
    )


def labelled(
    name: str, *, source: str, uses_teacher: bool = True, **declared: Any
) -> Callable[[Made], Made]:
    """Registers an objective that also takes `labels=`, the token ids [N].

    One that declares `uses_teacher=False` is given the student's own log-probabilities, detached,
    in place of the teacher's, and no teacher is run for it. The other arguments are `divergence`'s.
    """
    return _register("labelled", name, source, uses_teacher=uses_teacher, **declared)


def stateful(name: str, *, source: str, **declared: Any) -> Callable[[Made], Made]:
    """Registers a class whose instances are a `State`: an objective that follows the training.

    The class is called with the parameters by keyword, once a trial. The other arguments are
    `divergence`'s.
    """
    return _register("stateful", name, source, **declared)


def preset(name: str, expression: str, *, source: str) -> None:
    """Gives a variant that a paper or a released script uses a name of its own."""
    _add_named(PRESETS, Preset(name, expression, source))


def method(name: str, expression: str, *, source: str) -> None:
    """Names an objective on a source of sequences: `method("gkd", "jsd@mixed", source=...)`."""
    _add_named(METHODS, Preset(name, expression, source))


def _register(
    kind: Kind,
    name: str,
    source: str,
    /,
    *,
    aliases: Sequence[str] = (),
    group: str = "more",
    uses_teacher: bool = True,
    grid: Mapping[str, Sequence[Value]] | None = None,
    check: Check | None = None,
    infinite_where: Infinite = None,
    **parameters: object,
) -> Callable[[Made], Made]:
    declared = {key: declare(value) for key, value in parameters.items()}
    if LR in declared:
        raise UserError(
            f"{name} declares a parameter named {LR}: that is the harness's, {name}[{LR}=0.001] "
            "sets the learning rate of the training; give the parameter another name"
        )

    def register(function: Made) -> Made:
        body = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        where = f"{body.__code__.co_filename}:{body.__code__.co_firstlineno}"
        _check_signature(name, kind, function, declared, where)
        objective = Objective(
            name=name,
            kind=kind,
            function=function,
            parameters=declared,
            source=source,
            description=inspect.getdoc(function) or "",
            defined_at=where,
            registered_in=sys._getframe(1).f_code.co_filename,
            group=group,
            uses_teacher=uses_teacher,
            grid={key: tuple(values) for key, values in (grid or {}).items()},
            check=check,
            infinite_where=infinite_where,
        )
        for word in (name, *aliases):
            _claim(word, where)
        OBJECTIVES.add(name, objective, where)
        ALIASES.update(dict.fromkeys(aliases, name))
        return function

    return register


def _check_signature(
    name: str, kind: Kind, function: Any, declared: Mapping[str, Parameter], where: str
) -> None:
    """Refuses a function that cannot be called with what is declared of it."""
    named = {**dict.fromkeys(declared), **({"labels": None} if kind == "labelled" else {})}
    given = () if kind == "stateful" else (None, None)
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        raise UserError(
            f"{name} ({where}): called with {', '.join(named) or 'no parameter'}"
            f"{' after the two distributions' if given else ''}, and its signature is {signature}: "
            f"{error}; what is declared has to stand in the signature under the same name"
        ) from error


def _add_named(registry: Registry[Preset], named: Preset) -> None:
    caller = sys._getframe(2)  # of `preset` or `method`
    where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    _claim(named.name, where)
    registry.add(named.name, named, where)


def _claim(name: str, where: str) -> None:
    taken = (*REFERENCES, *GROUPS, *(word.replace(" ", "-") for word in REFERENCES))
    if not NAME.fullmatch(name) or name in taken:  # a reference's folder has a `-` for its space
        raise UserError(
            f"'{name}' cannot be an objective's name: it is lower-case words joined by '-', not "
            f"one of {', '.join((*GROUPS, *REFERENCES))}"
        )
    NAMES.add(name, name, where)
