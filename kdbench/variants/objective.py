"""What an objective is: one function of two log-distributions, and what is declared about it.

A *variant* is an objective with its parameters fixed; it is what runs, is named and is ranked.
"""

import ast
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kdbench.base.registry import Registry
from kdbench.variants.parameters import Parameter, Value

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


@dataclass(frozen=True, eq=False)
class Source:
    """A registered source of sequences.

    Attributes:
        paper: where it comes from.
        samples: sequences are sampled from the student while it trains.
        teacher_answers: it needs the teacher's own responses to the training prompts.
    """

    name: str
    parameters: Mapping[str, Parameter]
    paper: str
    description: str
    samples: bool
    teacher_answers: bool


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


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
