"""The numerics table: `python -m kdbench.authoring.table > docs/numerics.md`.

One row an objective, with its defaults: what it is at zeros, and how near float32 comes to float64.
"""

import torch
from torch import Tensor

from kdbench.authoring.cases import values, zero_cases
from kdbench.authoring.precision import (
    LARGE,
    LARGE_ROUNDING,
    RELATIVE,
    cases,
    compare,
    large_case,
)
from kdbench.base.templates import render
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import Variant, load_objectives, variant_of

SMALL = 0.01
"""Below this an error is given absolutely, in the last columns."""

NEAR = ("close distributions", "equal distributions")


def table() -> str:
    """The page, as Markdown."""
    return render(
        "authoring/numerics.md",
        zeros=zeros_table(),
        errors={str(variant): _errors(variant) for variant in _variants()},
        large=LARGE,
        small=SMALL,
        relative=RELATIVE,
    )


def zeros_table() -> list[str]:
    """The lines of the first table: what each objective is where probabilities are 0."""
    return [
        "| objective | only the teacher's is 0 | only the student's is 0 | both are 0 |",
        "|---|---|---|---|",
        *(f"| `{variant}` | {' | '.join(_at_zeros(variant))} |" for variant in _variants()),
    ]


def _variants() -> list[Variant]:
    load_objectives()
    return [variant_of(OBJECTIVES[name], {}) for name in OBJECTIVES]


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
