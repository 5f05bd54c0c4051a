"""What an objective is: one function of two log-distributions, and what is declared about it.

A *variant* is an objective with its parameters fixed; it is what runs, is named and is ranked.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kdbench.base.errors import UserError
from kdbench.base.registry import Registry, unknown
from kdbench.variants.parameters import Number, Parameter, Value, resolve, written
from kdbench.variants.sequences import DATASET, SourceVariant

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["divergence", "labelled", "stateful"]
Zero = Literal["teacher", "student"]
"""Whose probability is zero, at an id where the other's is not."""

GROUPS = ("all", "core", "more", "methods")
"""Words that stand for several objectives."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LR = "lr"
"""Written among an objective's parameters, but the harness's: the peak of the learning rate."""
LEARNING_RATE = Number(1.0, "(0, inf)")


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

        `lr` may be given beside the declared ones.

        Raises:
            UserError: an unknown parameter, a value of the wrong type or out of range, or a
                combination for which the loss would be identically 0.
        """
        own = {name: value for name, value in given.items() if name != LR}
        for name in own:
            if name not in self.parameters:
                known = [*self.parameters, LR]
                raise UserError(
                    unknown(f"parameter of {self.name}", name, known)
                    if self.parameters
                    else f"{self.name} has no parameters, so '{name}' cannot be set; {LR}, the "
                    "learning rate, can"
                )
        params = resolve(self.name, self.parameters, own)
        if self.check is not None and (reason := self.check(params)):
            raise UserError(f"{self.name}: {reason}")
        return Variant(self, params, lr=learning_rate(self.name, given))

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
        lr: the learning rate it is trained with; None for the suite's. The harness's: the
            objective is never told.
    """

    objective: Objective
    params: Mapping[str, Value] = field(hash=False)
    source: SourceVariant = DATASET
    lr: float | None = None

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
        from kdbench.variants.select import parse

        return parse, (self.full_name,)

    @cached_property
    def name(self) -> str:
        """The canonical name: a method's own, else with parameters at their defaults left out."""
        from kdbench.variants.select import method_of

        if (method := method_of(self)) is None:
            return self._written(defaults=False)
        return _with_lr(method, self.lr)

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
        text = _with_lr(text, self.lr)
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


def learning_rate(owner: str, given: Mapping[str, object]) -> float | None:
    """The learning rate among what is given to a variant; None where it is not.

    Raises:
        UserError: it is not a positive finite number.
    """
    if LR not in given:
        return None
    lr: Any = resolve(owner, {LR: LEARNING_RATE}, {LR: given[LR]})[LR]
    return float(lr)


def _with_lr(text: str, lr: float | None) -> str:
    """A variant's text with the learning rate as its last parameter."""
    if lr is None:
        return text
    given = f"{LR}={LEARNING_RATE.write(lr)}"
    return f"{text[:-1]},{given}]" if text.endswith("]") else f"{text}[{given}]"


def _plain(params: Mapping[str, Value]) -> dict[str, Any]:
    return {
        name: value.full_name if isinstance(value, Variant) else value
        for name, value in params.items()
    }


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
