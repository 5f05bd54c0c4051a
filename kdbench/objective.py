"""What an objective is: one function of two log-distributions, and what is declared about it.

A *variant* is an objective with its parameters fixed; it is what runs, is named and is ranked.
"""

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from kdbench.errors import UserError
from kdbench.parameters import Parameter, Value, declare, resolve, written
from kdbench.registry import Registry
from kdbench.source import DATASET, SourceVariant
from kdbench.store import REFERENCES

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["divergence", "labelled", "stateful"]
Zero = Literal["teacher", "student"]
"""Whose probability is zero, at an id where the other's is not."""

Zeros = Sequence[Zero] | None
Infinite = Zeros | Callable[[Mapping[str, Any]], Zeros]
"""At whose zeros a value is +inf, perhaps depending on the parameters; None: not declared."""

PerToken = Callable[..., "Tensor"]
Made = TypeVar("Made", bound=Callable[..., Any])
GROUPS = ("all", "core", "more", "methods")
"""Words that stand for several objectives."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


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
    group: str
    uses_teacher: bool
    grid: Mapping[str, tuple[Value, ...]]
    check: Callable[[Mapping[str, Any]], str | None] | None
    infinite_where: Callable[[Mapping[str, Any]], frozenset[Zero] | None]

    def variant(self, given: Mapping[str, object]) -> "Variant":
        """This objective with some parameters given and the others at their defaults.

        Raises:
            UserError: an unknown parameter, a value of the wrong type or out of range, or a
                combination for which the loss would be identically 0.
        """
        params = resolve(self.name, self.parameters, given)
        if self.check is not None and (reason := self.check(params)):
            raise UserError(f"{self.name}: {reason}")
        return Variant(self, params)

    def code_digest(self) -> str:
        """Twelve hexadecimal digits that change when the code of the defining file does.

        Comments, layout and docstrings do not count.
        """
        tree = ast.parse(Path(self.defined_at.rpartition(":")[0]).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                node.body = [item for item in node.body if not _is_docstring(item)]
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


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


@dataclass(frozen=True)
class Variant:
    """An objective with its parameters fixed, written `amid[alpha=-3,teacher_weight=0.1]`.

    Calling it gives one value per token.

    Attributes:
        source: where the training sequences come from, written behind an `@`.
    """

    objective: Objective
    params: Mapping[str, Value] = field(hash=False)
    source: SourceVariant = DATASET

    def __call__(
        self, teacher_logp: "Tensor", student_logp: "Tensor", labels: "Tensor | None" = None
    ) -> "Tensor":
        """Per-token values of the objective; of a stateful one, as it begins.

        Args:
            teacher_logp: log-probabilities of the teacher, [N, V].
            student_logp: log-probabilities of the student, [N, V], in the same dtype.
            labels: token ids, [N]; only objectives of kind `labelled` read them.

        Returns:
            [N], in nats where the objective is an entropy, in the dtype of the inputs.

        Raises:
            UserError: the objective needs labels and there are none.
        """
        if self.objective.kind == "labelled":
            if labels is None:
                raise UserError(f"{self.objective.name} needs labels=, the token ids [N]")
            values: Tensor = self.objective.function(
                teacher_logp, student_logp, labels=labels, **self.params
            )
            return values
        if (state := self.begin()) is not None:
            return state.per_token(teacher_logp, student_logp)
        values = self.objective.function(teacher_logp, student_logp, **self.params)
        return values

    def begin(self) -> State | None:
        """The state of a stateful objective before the first step; None for the other kinds."""
        if self.objective.kind != "stateful":
            return None
        state: State = self.objective.function(**self.params)
        return state

    def drawn_from(self, source: SourceVariant) -> "Variant":
        """The same objective on the sequences of another source.

        Raises:
            UserError: they do not go together.
        """
        if source.source.samples and not self.objective.uses_teacher:
            raise UserError(
                f"{self.objective.name}@{source.source.name}: {self.objective.name} does not look "
                "at the teacher, so it would train the student on its own samples as if they were "
                "right; take a divergence, or the source `dataset` or `teacher`"
            )
        return replace(self, source=source)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Callable[[str], "Variant"], tuple[str]]:
        """Travels between processes as its name: functions of a plugin file cannot be pickled."""
        from kdbench.expressions import parse

        return parse, (self.full_name,)

    @cached_property
    def name(self) -> str:
        """The canonical name: a method's own, else with parameters at their defaults left out."""
        from kdbench.expressions import method_of

        return method_of(self) or self._written(defaults=False)

    @cached_property
    def full_name(self) -> str:
        """The name with every parameter spelled out; equal for equal content."""
        return self._written(defaults=True)

    @cached_property
    def slug(self) -> str:
        """The name as a folder: letters, digits, `.`, `_` and `-` only."""
        slug = re.sub(r"[^a-z0-9.-]+", "_", self.name).strip("_")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        # Two names must not meet in one folder: what was replaced beyond the notation is hashed.
        faithful = len(slug) <= 80 and re.fullmatch(r"[a-z0-9.,=_@\[\]-]+", self.name)
        return slug if faithful else f"{slug[:71]}-{digest}"

    def plain_params(self) -> dict[str, float | bool | str]:
        """The parameters as JSON values; an inner divergence by its full name."""
        return _plain(self.params)

    def plain_source(self) -> dict[str, Any]:
        """The source and its parameters as JSON values."""
        return {"name": self.source.source.name, "params": _plain(self.source.params)}

    def code_digest(self) -> str:
        """Changes when the code of the objective, or of one inside it, does."""
        values = [*self.params.values(), *self.source.params.values()]
        inside = [value for value in values if isinstance(value, Variant)]
        digests = [self.objective.code_digest(), *(value.code_digest() for value in inside)]
        return "-".join(dict.fromkeys(digests))

    def infinite_where(self) -> frozenset[Zero] | None:
        """At whose zeros the value is +inf; None where the objective does not declare it."""
        return self.objective.infinite_where(self.params)

    def _written(self, *, defaults: bool) -> str:
        objective = self.objective
        text = written(objective.name, objective.parameters, self.params, defaults=defaults)
        if self.source.source is DATASET.source:
            return text
        return f"{text}@{self.source.written(defaults=defaults)}"


@dataclass(frozen=True)
class Preset:
    """A name for a variant that a paper or a released script uses."""

    name: str
    expression: str
    source: str


OBJECTIVES: Registry[Objective] = Registry("objective")
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


def _plain(params: Mapping[str, Value]) -> dict[str, Any]:
    return {
        name: value.full_name if isinstance(value, Variant) else value
        for name, value in params.items()
    }


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


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
