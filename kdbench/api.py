"""All that an author of an objective imports.

from kdbench.api import divergence, kl, number

@divergence("my-kl", source="this file", scale=number(1.0, "(0, inf)"))
def my_kl(teacher_logp, student_logp, *, scale):
    return scale * kl(teacher_logp, student_logp)
"""

from kdbench.variants.logspace import (
    arithmetic_mixture,
    entropy,
    expectation,
    jensen_shannon,
    kl,
    mixture_kl,
)
from kdbench.variants.objective import divergence, labelled, method, preset, stateful
from kdbench.variants.parameters import Choice, Number
from kdbench.variants.variant import Variant, inner
from kdbench.variants.variant import parse as objective

__all__ = [
    "Variant",
    "arithmetic_mixture",
    "choice",
    "divergence",
    "entropy",
    "expectation",
    "inner",
    "jensen_shannon",
    "kl",
    "labelled",
    "method",
    "mixture_kl",
    "number",
    "objective",
    "preset",
    "stateful",
]


def number(default: float, interval: str = "(-inf, inf)", search: str = "") -> Number:
    """Declares a parameter that is a number in an interval such as `[0, 1)`.

    Args:
        default: the paper's.
        interval: the legal values.
        search: where tuning looks for a better one, if the interval is infinite or too wide.
    """
    return Number(float(default), interval, search)


def choice(default: str, *options: str) -> Choice:
    """Declares a parameter that is one of a few words, the default among them."""
    return Choice(default, (default, *(option for option in options if option != default)))
