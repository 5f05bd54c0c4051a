"""A variant: an objective with its parameters fixed, on some sequences. Its name says it all.

It is what runs, is named and is ranked: `amid[alpha=-3,teacher_weight=0.1]`, `jsd@mixed`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from kdbench.base.errors import UserError
from kdbench.base.registry import load_entry_points, load_module, unknown
from kdbench.variants.objective import (
    ALIASES,
    GROUPS,
    LEARNING_RATE,
    LR,
    METHODS,
    OBJECTIVES,
    PRESETS,
    SOURCES,
    Objective,
    Source,
    State,
    Zero,
)
from kdbench.variants.parameters import (
    Inner,
    Value,
    resolve,
    split_at,
    split_expression,
    written,
)

if TYPE_CHECKING:
    from torch import Tensor

SOURCES.add(
    "dataset",
    Source("dataset", "The gold responses, off-policy; what is used where no source is written."),
    __file__,
)


@dataclass(frozen=True)
class SourceVariant:
    """A source with its parameters fixed."""

    source: Source
    params: Mapping[str, Value] = field(hash=False)

    @property
    def name(self) -> str:
        """The source's name, without parameters."""
        return self.source.name

    @property
    def samples(self) -> bool:
        """Sequences are sampled from the student while it trains."""
        return self.source.samples

    @property
    def teacher_answers(self) -> bool:
        """It needs the teacher's own responses to the training prompts."""
        return self.source.teacher_answers

    @property
    def dropout(self) -> bool:
        """The student trains with the dropout that it has."""
        return self.source.dropout

    def number(self, name: str) -> float:
        """The value of a parameter that is a number."""
        return float(self.params[name])  # type: ignore[arg-type]


DATASET = SourceVariant(SOURCES["dataset"], {})
_WORD = "[a-z0-9.-]+"
_ITEMS = rf"\[{_WORD}={_WORD}(,{_WORD}={_WORD})*\]"
_FAITHFUL = re.compile(rf"{_WORD}({_ITEMS}|@{_WORD}({_ITEMS})?)?")
"""Names that their slugs tell apart: `name[...]` has an odd number of words, `name@source[...]` an
even one, and no word holds a `_`. All others are hashed, so that two never share a folder."""


@dataclass(frozen=True)
class Variant:
    """An objective with its parameters fixed, written `amid[alpha=-3,teacher_weight=0.1]`.

    Calling it gives one value per token.

    Attributes:
        sequences: where the training sequences come from, written behind an `@`.
        lr: the learning rate it is trained with; None for the suite's. The harness's: the
            objective is never told.
    """

    objective: Objective
    params: Mapping[str, Value] = field(hash=False)
    sequences: SourceVariant = DATASET
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
        if (state := self.begin()) is not None:
            return state.per_token(teacher_logp, student_logp)
        given = dict(self.params)
        if self.objective.kind == "labelled":
            if labels is None:
                raise UserError(f"{self.objective.name} needs labels=, the token ids [N]")
            given["labels"] = labels
        values: Tensor = self.objective.function(teacher_logp, student_logp, **given)
        return values

    def begin(self) -> State | None:
        """The state of a stateful objective before the first step; None for the other kinds."""
        if self.objective.kind != "stateful":
            return None
        state: State = self.objective.function(**self.params)
        return state

    def drawn_from(self, sequences: SourceVariant) -> "Variant":
        """The same objective on the sequences of another source.

        Raises:
            UserError: they do not go together.
        """
        if sequences.samples and not self.objective.uses_teacher:
            raise UserError(
                f"{self.objective.name}@{sequences.name}: {self.objective.name} does not look "
                "at the teacher, so it would train the student on its own samples as if they were "
                "right; take a divergence, or the source `dataset` or `teacher`"
            )
        return replace(self, sequences=sequences)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Callable[..., "Variant"], tuple[Any, ...]]:
        """Travels between processes as data: functions of a plugin file cannot be pickled."""
        sequences = (self.sequences.name, dict(self.sequences.params))
        return _received, (
            self.objective.name,
            dict(self.params),
            *sequences,
            self.lr,
            self.objective.code,
        )

    @cached_property
    def name(self) -> str:
        """The canonical name: a method's own, else with parameters at their defaults left out."""
        if self.sequences.name != DATASET.name:
            full = replace(self, lr=None).full_name
            for method in METHODS:
                if _method(method, {}).full_name == full:
                    return written(method, LEARNING_RATE, {LR: self.lr}, defaults=False)
        return self._written(defaults=False)

    @cached_property
    def full_name(self) -> str:
        """The name with every parameter spelled out; equal for equal content."""
        return self._written(defaults=True)

    @cached_property
    def slug(self) -> str:
        """The name as a folder: letters, digits, `.`, `_` and `-` only."""
        slug = re.sub(r"[^a-z0-9.-]+", "_", self.name).strip("_")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        faithful = len(slug) <= 80 and _FAITHFUL.fullmatch(self.name)
        return slug if faithful else f"{slug[:71]}-{digest}"

    def plain_params(self) -> dict[str, float | bool | str]:
        """The parameters as JSON values; an inner divergence by its full name."""
        return _plain(self.params)

    def plain_source(self) -> dict[str, Any]:
        """The source and its parameters as JSON values."""
        return {"name": self.sequences.name, "params": _plain(self.sequences.params)}

    def code_digest(self) -> str:
        """Changes when the code of the objective, or of one inside it, does."""
        values = [*self.params.values(), *self.sequences.params.values()]
        inside = [value for value in values if isinstance(value, Variant)]
        digests = [self.objective.code, *(value.code_digest() for value in inside)]
        return "-".join(dict.fromkeys(digests))

    def infinite_where(self) -> frozenset[Zero] | None:
        """At whose zeros the value is +inf; None where the objective does not declare it."""
        zeros = self.objective.infinite_where
        if callable(zeros):
            zeros = zeros(self.params)
        return None if zeros is None else frozenset(zeros)

    def _written(self, *, defaults: bool) -> str:
        declared = {**self.objective.parameters, **LEARNING_RATE}
        params = {**self.params, LR: self.lr}
        text = written(self.objective.name, declared, params, defaults=defaults)
        if self.sequences.name == DATASET.name:
            return text
        source, given = self.sequences.source, self.sequences.params
        return f"{text}@{written(source.name, source.parameters, given, defaults=defaults)}"


def variant_of(objective: Objective, given: Mapping[str, object]) -> Variant:
    """An objective with some parameters given and the others at their defaults.

    `lr` may be given beside the declared ones.

    Raises:
        UserError: an unknown parameter, a value of the wrong type or out of range, or a
            combination for which the loss would be identically 0.
    """
    params = resolve(objective.name, {**objective.parameters, **LEARNING_RATE}, given)
    lr: Any = params.pop(LR)
    if objective.check is not None and (reason := objective.check(params)):
        raise UserError(f"{objective.name}: {reason}")
    return Variant(objective, params, lr=lr)


def sequences_of(source: Source, given: Mapping[str, object]) -> SourceVariant:
    """A source with some parameters given and the others at their defaults.

    Raises:
        UserError: an unknown parameter, or a value out of range.
    """
    return SourceVariant(source, resolve(f"@{source.name}", source.parameters, given))


def _plain(params: Mapping[str, Value]) -> dict[str, Any]:
    return {
        name: value.full_name if isinstance(value, Variant) else value
        for name, value in params.items()
    }


def parse(expression: str) -> Variant:
    """One variant, from its name; parameters that are not given have their defaults.

    Raises:
        UserError: unknown name, parameter or source, broken brackets, a value out of range, or an
            objective and a source that do not go together.
    """
    load_objectives()
    head, source = split_source(expression)
    name, given = split_expression(head)
    if name in METHODS:
        if source is not None:
            raise UserError(
                f"'{expression}': {name} has a source: it is {METHODS[name].expression}"
            )
        return _method(name, given)
    if name in PRESETS:
        if given.keys() - {LR}:
            raise UserError(
                f"the preset {name} takes no parameters; write {PRESETS[name].expression}"
            )
        lr: Any = resolve(name, LEARNING_RATE, given)[LR]
        variant = replace(parse(PRESETS[name].expression), lr=lr)
    else:
        variant = variant_of(_objective(name), given)
    return variant if source is None else variant.drawn_from(source)


def inner(expression: str) -> Inner:
    """Declares a parameter that is itself a registered divergence."""
    return Inner(expression, _resolve_inner)


@cache
def load_objectives() -> None:
    """Imports every installed objective and every source of sequences, once."""
    load_module("kdbench.variants.sequences")
    load_entry_points("kdbench.objectives")


def _method(name: str, given: dict[str, str]) -> Variant:
    """A method, some of its objective's or its source's parameters given."""
    head, source_text = split_at(METHODS[name].expression)
    objective_name, objective_params = split_expression(head)
    source_name, source_params = split_expression(source_text or DATASET.name)
    objective, source = _objective(objective_name), SOURCES[source_name]
    for key, value in given.items():
        if key in objective.parameters or key == LR:
            objective_params[key] = value
        elif key in source.parameters:
            source_params[key] = value
        else:
            known = [*objective.parameters, *source.parameters, LR]
            raise UserError(unknown(f"parameter of {name}", key, known))
    variant = variant_of(objective, objective_params)
    return variant.drawn_from(sequences_of(source, source_params))


def split_source(expression: str) -> tuple[str, SourceVariant | None]:
    """What stands before the `@`, and the sequences behind it; None where there is no `@`."""
    head, text = split_at(expression)
    if text is None:
        return head, None
    name, given = split_expression(text)
    return head, sequences_of(SOURCES[name], given)


def _objective(name: str) -> Objective:
    name = ALIASES.get(name, name)
    if name in GROUPS:
        raise UserError(f"'{name}' stands for several objectives, and here one is needed")
    if name not in OBJECTIVES:
        known = [*OBJECTIVES, *PRESETS, *METHODS, *ALIASES, *GROUPS]
        raise UserError(unknown("objective", name, known))
    return OBJECTIVES[name]


def _resolve_inner(expression: str) -> Variant:
    variant = parse(expression)
    if variant.lr is not None:
        raise UserError(
            f"{expression}: {LR} is the learning rate of a whole variant; write it outside, after "
            "the parameters of the objective that holds this one"
        )
    if not _is_plain(variant.objective) or variant.sequences != DATASET:
        usable = [name for name in OBJECTIVES if _is_plain(OBJECTIVES[name])]
        raise UserError(
            f"{expression} cannot stand inside another objective: only plain divergences can: "
            f"{', '.join(usable)}"
        )
    return variant


def _is_plain(objective: Objective) -> bool:
    nested = any(isinstance(item, Inner) for item in objective.parameters.values())
    return objective.kind == "divergence" and not nested


def _received(
    objective: str,
    params: dict[str, Value],
    source: str,
    source_params: dict[str, Value],
    lr: float | None,
    code: str,
) -> Variant:
    """A variant of another process, whose objectives and plugins this one has loaded, too.

    Raises:
        UserError: what this process has loaded is other code.
    """
    load_objectives()
    if OBJECTIVES[objective].code != code:
        raise UserError(
            f"{objective}: its code ({OBJECTIVES[objective].registered_in}, or a module it "
            "imports) was changed after the run started, so nothing more of it was run; give the "
            "command again, with the code as it was or for a trial of the new code"
        )
    sequences = SourceVariant(SOURCES[source], source_params)
    return Variant(OBJECTIVES[objective], params, sequences, lr)
