"""What every objective is held to, whoever wrote it: `check(variant)` tries it on small tensors.

Each property is a function that returns what is wrong, or nothing. The loop and the chunked head
rely on these properties; none of them says whether an objective is a good idea.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kdbench.authoring import precision
from kdbench.authoring import properties as held
from kdbench.variants.variant import Variant


@dataclass(frozen=True)
class Finding:
    """Whether a variant has a property, and the failing numbers where it has not."""

    property: str
    ok: bool
    detail: str


def check(variant: Variant) -> list[Finding]:
    """Holds a variant to every property that the harness relies on.

    Args:
        variant: an objective with its parameters, of any kind; a stateful one is held to its value
            in its initial state. Where its sequences come from does not matter.

    Returns:
        One finding a property, the same ones for every objective of a kind.
    """
    return [_find(name, test, variant) for name, test in _properties(variant).items()]


def _properties(variant: Variant) -> dict[str, Callable[[Variant], str]]:
    kind = variant.objective.kind
    tests = {
        "returns one value per token in the dtype of its inputs": held.shape_and_dtype,
        "takes a batch without tokens": held.takes_no_tokens,
        "is positive, and zero where student and teacher agree": held.is_a_divergence,
        "has a finite gradient that sums to zero over the vocabulary": held.sums_to_zero,
        "has the gradient of its value": held.agrees_with_differences,
        "lowers its value under gradient descent": held.descends,
        "does not depend on the order of the vocabulary": held.permutes,
        "ignores ids that neither model can say": held.ignores_padding,
        "is infinite exactly where it declares to be, and never NaN": held.declared_infinities,
        "agrees in float32 with float64": precision.agrees_with_float64,
        "agrees with float64 at a vocabulary of 151,936": precision.agrees_at_a_large_vocabulary,
        "treats tokens independently": held.is_per_token,
        "is deterministic": held.is_deterministic,
        "leaves its inputs as they are": held.keeps_inputs,
        "goes on from its saved state": held.resumes,
    }
    only = {held.is_a_divergence: "divergence", held.resumes: "stateful"}
    return {name: test for name, test in tests.items() if only.get(test, kind) == kind}


def _find(name: str, test: Callable[[Variant], str], variant: Variant) -> Finding:
    try:
        problem = test(variant)
    except Exception as error:  # an objective's author may raise anything
        problem = f"raised {type(error).__name__}: {error}"
    return Finding(name, not problem, problem)
