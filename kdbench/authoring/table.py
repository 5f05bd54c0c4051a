"""The numerics table: `python -m kdbench.authoring.table > docs/numerics.md`.

One row an objective, with its defaults: what it is at zeros, and how near float32 comes to float64.
"""

import torch

from kdbench.authoring.cases import values, zero_cases
from kdbench.authoring.precision import (
    LARGE,
    LARGE_ROUNDING,
    RELATIVE,
    Comparison,
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
    cells = []
    for value_or_gradient in (0, 1):
        relative = {name: _relative(pair[value_or_gradient]) for name, pair in found.items()}
        worst = max(relative, key=relative.__getitem__)
        cells += [f"{relative[worst]:.0e}", worst]
    for column in zip(*near, strict=True):
        cells.append(f"{max(comparison.errors.max().item() for comparison in column):.0e}")
    return cells


def _relative(comparison: Comparison) -> float:
    """The largest error of the tokens where it is relative to something finite and not small."""
    sizes = comparison.sizes
    sound = (sizes >= SMALL) & sizes.isfinite()
    return (comparison.errors[sound] / sizes[sound]).max().item() if sound.any() else 0.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(), end="")
