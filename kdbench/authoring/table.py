"""The numerics table: `python -m kdbench.authoring.table > docs/numerics.md`.

One row an objective, with its defaults: what it is at zeros, and how near float32 comes to float64.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from kdbench.authoring.cases import values
from kdbench.authoring.precision import (
    LARGE,
    LARGE_ROUNDING,
    RELATIVE,
    cases,
    compare,
    large_case,
)
from kdbench.authoring.zeros import zero_cases
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import Variant, load_objectives, variant_of

SMALL = 0.01
"""Below this an error is given absolutely, in the last columns."""

NEAR = ("close distributions", "equal distributions")

TEXT = f"""\
# Numerics of the objectives

Written by `python -m kdbench.authoring.table > docs/numerics.md`; every objective stands here
with its defaults. `kdbench check NAME` tries any other setting, and any file of yours.

## Where a probability is 0

The value at an id (of a padded vocabulary, say) that only the teacher, only the student, or neither
can say. It is never NaN, and where it is finite its gradient is. For an objective that reads labels
the id is not the label. An objective declares this as `infinite_where`, which may depend on its
parameters; the conformance tests hold it to that in float64 and in float32, also where each model
has a zero of its own and where the teacher is one-hot. The loop names the id where a loss is
infinite.

{{zeros}}

## How near float32 comes to float64

The largest errors of value and gradient in float32 against the same objective in float64, from the
same logits, over: ordinary and sharp distributions, one teacher logit 150 above the rest, a one-hot
teacher, logits of +-150, logits rounded to bfloat16, ids at -inf, and {LARGE:,} ids. They are
relative to the value and to the largest entry of a token's gradient, over tokens where that is at
least {SMALL}. In the last two columns teacher and student are equal, or a thousandth apart: values
are small differences there, so the errors are absolute. Digits differ from machine to machine.

What the tests demand of each token: an error of at most 1e-6 + {RELATIVE:g} times the value (for a
gradient: its largest entry, and 2^-20 times the value), plus what the float64 result changes by
when each log-probability x moves by 2^-20 (1 + |x|), sixteen roundings of float32 (at {LARGE:,}
ids 2^-17).

{{errors}}

What is beyond float32's largest number, 3.4e38, is +inf in float32: unbounded objectives get there
when the teacher is certain enough. Where teacher and student are equal, an objective with a kink
there has many subgradients, and the last bit may decide which one it is.
"""


def table() -> str:
    """The page, as Markdown."""
    variants = _variants()
    errors = [f"| `{variant}` | {' | '.join(_errors(variant))} |" for variant in variants]
    heads = ("objective", "value", "on", "gradient", "on", "value, p ~ q", "gradient, p ~ q")
    return TEXT.format(
        zeros="\n".join(zeros_table(variants)), errors="\n".join([*_header(heads), *errors])
    )


def zeros_table(variants: Iterable[Variant] | None = None) -> list[str]:
    """The lines of the first table: what each objective is where probabilities are 0."""
    rows = [
        f"| `{variant}` | {' | '.join(_at_zeros(variant))} |" for variant in variants or _variants()
    ]
    heads = ("objective", "only the teacher's is 0", "only the student's is 0", "both are 0")
    return [*_header(heads), *rows]


def _variants() -> list[Variant]:
    load_objectives()
    return [variant_of(OBJECTIVES[name], {}) for name in OBJECTIVES]


def _header(heads: Iterable[str]) -> list[str]:
    heads = list(heads)
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def _at_zeros(variant: Variant) -> list[str]:
    three = [case for _, _, case in zero_cases()][:3]
    return ["+inf" if values(variant, case).isinf().any() else "finite" for case in three]


def _errors(variant: Variant) -> list[str]:
    found = {name: compare(variant, case) for name, case in cases()}
    near = [found.pop(name) for name in NEAR]
    found[f"{LARGE:,} ids"] = compare(variant, large_case(), LARGE_ROUNDING)
    of_values, of_gradients = {}, {}
    for name, item in found.items():
        of_values[name] = _relative(item.value_errors, item.exact_values.abs())
        of_gradients[name] = _relative(item.gradient_errors, item.exact_gradient.abs().amax(-1))
    return [
        *_worst(of_values),
        *_worst(of_gradients),
        f"{max(item.value_errors.max().item() for item in near):.0e}",
        f"{max(item.gradient_errors.max().item() for item in near):.0e}",
    ]


def _relative(errors: Tensor, sizes: Tensor) -> float:
    """The largest error of the tokens where it is relative to something finite and not small."""
    sound = (sizes >= SMALL) & sizes.isfinite()
    return (errors[sound] / sizes[sound]).max().item() if sound.any() else 0.0


def _worst(errors: dict[str, float]) -> tuple[str, str]:
    name = max(errors, key=errors.__getitem__)
    return f"{errors[name]:.0e}", name


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(), end="")
