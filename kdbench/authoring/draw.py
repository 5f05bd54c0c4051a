"""The pictures of the gallery: what an objective pushes, and the student it ends with."""

from collections.abc import Iterator, Sequence

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from kdbench.authoring.descent import PLACES, end, push, student, teacher
from kdbench.report.plots import to_bytes
from kdbench.report.style import SETTINGS, Colour, shortened
from kdbench.variants.variant import Variant, parse

Curve = tuple[str, Variant, Colour | str, str, float]
"""Label, variant, colour, dashes, line width."""

GREY = "#d9d9d9"


def picture(variants: Sequence[Variant], suffix: str) -> bytes:
    """One figure for the variants of one objective, as the bytes of a `png` or `svg` file."""
    with mpl.rc_context(SETTINGS):
        return to_bytes(_draw(list(_curves(variants))), suffix)


def overview(variants: Sequence[Variant], suffix: str) -> bytes:
    """Mean and width of the student that each variant ends with, the widest first."""
    with mpl.rc_context(SETTINGS):
        return to_bytes(_draw_ends(variants), suffix)


def _curves(variants: Sequence[Variant]) -> Iterator[Curve]:
    """Forward and reverse KL as references, then the variants, shaded where they are many."""
    blue, orange = sns.color_palette("colorblind")[:2]
    yield "forward-kl", parse("forward-kl"), blue, "--", 1.4
    yield "reverse-kl", parse("reverse-kl"), orange, ":", 1.8
    if len(variants) == 1:
        yield shortened(variants[0].name), variants[0], "#222222", "-", 1.6
        return
    for variant, colour in zip(variants, sns.color_palette("viridis", len(variants)), strict=True):
        yield _difference(variant, variants), variant, colour, "-", 1.4


def _difference(variant: Variant, others: Sequence[Variant]) -> str:
    """The parameters in which the variants differ: alpha = -3."""
    return ", ".join(
        f"{name} = {variant.objective.parameters[name].write(value)}"
        for name, value in variant.params.items()
        if any(other.params[name] != value for other in others)
    )


def _draw(curves: Sequence[Curve]) -> Figure:
    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    axes = figure.subplot_mosaic([["now", "end"], ["push", "end"]], height_ratios=[2, 3])
    axes["now"].sharex(axes["push"])
    axes["now"].tick_params(labelbottom=False)
    for name in ("now", "end"):
        axes[name].fill_between(PLACES, teacher().exp(), color=GREY, label="teacher p")
    axes["now"].plot(PLACES, student().exp(), color="#777777", label="student q")
    axes["now"].legend(loc="upper right", fontsize=8)
    lines = []
    for label, variant, colour, dashes, width in curves:
        order = 3 if dashes == "-" else 4  # the references stay visible
        force, ended = push(variant), end(variant)
        size = float(force.abs().sum())
        axes["push"].plot(PLACES, force / size, dashes, color=colour, linewidth=width, zorder=order)
        lines += axes["end"].plot(
            PLACES, ended.logp().exp(), dashes, color=colour, linewidth=width, zorder=order,
            label=f"{label}\n  size {size:.2g}, ends at {ended.mean:.2f} ± {ended.width:.2f}",
        )  # fmt: skip
    axes["push"].axhline(0, color="#999999", linewidth=0.8)
    axes["now"].set(title="two modes, and a student beside one", ylabel="probability")
    axes["push"].set(
        xlabel="place of the id", ylabel="push on each logit\n(minus gradient, size 1)"
    )
    axes["end"].set(
        title="the Gaussian that descent ends with", xlabel="place of the id", ylabel="probability"
    )
    for name in ("now", "end"):
        axes[name].set_ylim(bottom=0)
    figure.legend(handles=lines, loc="outside right upper", fontsize=8)
    return figure


def _draw_ends(variants: Sequence[Variant]) -> Figure:
    rows = sorted(variants, key=lambda variant: (-round(end(variant).width, 3), variant.name))
    figure = Figure(figsize=(8.2, 1.2 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    blue, orange = sns.color_palette("colorblind")[:2]
    for name, colour, dashes in (("forward-kl", blue, "--"), ("reverse-kl", orange, ":")):
        ended = end(parse(name))
        for side, place in zip(axes, (ended.mean, ended.width), strict=True):
            side.axvline(place, color=colour, linestyle=dashes, label=name)
    for row, variant in enumerate(rows):
        ended = end(variant)
        for side, place in zip(axes, (ended.mean, ended.width), strict=True):
            side.plot(place, row, "o", color="#222222", markersize=5, zorder=3)
    axes[0].set_yticks(range(len(rows)), [shortened(variant.name) for variant in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    axes[0].set(xlabel="mean of the student (modes at -1.6 and 1.6)")
    axes[1].set(xlabel="width of the student (a mode's: 0.5)", xlim=(0, None))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8)
    return figure
