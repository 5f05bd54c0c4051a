"""From a design to ordinary plans, one a student, with everything checked before anything runs."""

from collections.abc import Sequence
from dataclasses import replace

from kdbench.pipeline.plan import Plan, Request, check_name, make_plan
from kdbench.study.design import Design, check_same_study
from kdbench.variants.variant import Variant


def make_plans(design: Design, variants: Sequence[Variant], request: Request) -> dict[str, Plan]:
    """The run of each student, below `<out>/<name>/`.

    All train the same variants; teacher, tokenizer and data have the same place in the cache, since
    only the fields of the student differ.

    Args:
        design: of the study.
        variants: all that it trains.
        request: what all runs share, and the study's name.

    Raises:
        UserError: the folder holds something else, or a run of it does not fit: see `make_plan`.
    """
    name = request.name or f"study-{design.parameter}"
    check_name(name)
    folder = request.out / name
    check_same_study(folder, design)
    objectives = ",".join(variant.full_name for variant in variants)
    return {
        student: make_plan(
            replace(
                request,
                objectives=objectives,
                name=student,
                out=folder,
                settings=(*request.settings, *settings),
            )
        )
        for student, settings in design.students.items()
    }
