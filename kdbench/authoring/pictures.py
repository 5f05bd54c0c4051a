"""What an objective does to a student that is too small, computed and drawn; the same for all.

The vocabulary is 41 ids at the places -4 ... 4. The teacher has two modes; the student is a single
discretised Gaussian, so it must choose between covering both and seeking one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib as mpl
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kdbench.report.plots import to_bytes
from kdbench.report.style import SETTINGS, Colour, shortened
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant, parse

PLACES = torch.linspace(-4.0, 4.0, 41, dtype=torch.float64)
STARTS = ((-1.6, 0.5), (0.0, 1.5), (1.6, 0.5))
"""(mean, width) from which descent begins: on each mode, and wide in the middle."""

STEPS = 300
RATE = 0.1  # of Adam, falling linearly to 0


@dataclass(frozen=True)
class End:
    """Where descent ends: the parameters of the Gaussian, in units of the places."""

    mean: float
    width: float

    def logp(self) -> Tensor:
        """The student's log-probabilities, [41]."""
        return gaussian(self.mean, self.width)


def teacher() -> Tensor:
    """Log-probabilities [41]: 60 % around -1.6, 39 % around 1.6, 1 % spread over all ids."""
    left, right = gaussian(-1.6, 0.5).exp(), gaussian(1.6, 0.5).exp()
    return (0.6 * left + 0.39 * right + 0.01 / len(PLACES)).log()


def student() -> Tensor:
    """Log-probabilities [41] of the student whose gradient is shown: beside the larger mode."""
    return gaussian(-0.8, 0.7)


def gaussian(mean: float, width: float) -> Tensor:
    """Log-probabilities [41] of a discretised Gaussian."""
    return _gaussian(*torch.tensor([[[mean]], [[width]]], dtype=torch.float64))[0]


def push(variant: Variant) -> Tensor:
    """What gradient descent adds to each logit of `student()`: minus the gradient, [41]."""
    logits = student().requires_grad_()
    values = _expected(variant, None, torch.log_softmax(logits, -1).unsqueeze(0))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return -gradient


@cache
def end(variant: Variant) -> End:
    """The Gaussian that descent ends with: of those reached from `STARTS`, the one of least value.

    A stateful objective is told of every step, as in training.
    """
    starts = torch.tensor(STARTS, dtype=torch.float64)
    mean = starts[:, :1].clone().requires_grad_()
    log_width = starts[:, 1:].log().requires_grad_()
    adam = torch.optim.Adam([mean, log_width], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, STEPS)
    state = variant.begin()
    for step in range(STEPS):
        adam.zero_grad()
        values = _expected(variant, state, _gaussian(mean, log_width.exp()))
        values.sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
        if state is not None:
            state.after_step(float(values.mean().detach()), (step + 1) / STEPS)
    with torch.no_grad():
        widths = log_width.exp()
        best = int(_expected(variant, state, _gaussian(mean, widths)).argmin())
    return End(mean[best].item(), widths[best].item())


def _gaussian(mean: Tensor, width: Tensor) -> Tensor:
    """Log-probabilities [N, 41] of students with means and widths [N, 1]."""
    return torch.log_softmax(-((PLACES - mean) ** 2) / (2.0 * width**2), dim=-1)


def _expected(variant: Variant, state: State | None, student_logp: Tensor) -> Tensor:
    """Values [N] of students [N, 41]; where labels are needed, the mean over the teacher's."""
    teacher_logp = teacher().expand_as(student_logp)
    if state is not None:
        return state.per_token(teacher_logp, student_logp)
    if variant.objective.kind != "labelled":
        return variant(teacher_logp, student_logp)
    labels = torch.arange(len(PLACES)).repeat(len(student_logp))
    rows = [logp.repeat_interleave(len(PLACES), 0) for logp in (teacher_logp, student_logp)]
    values = variant(rows[0], rows[1], labels).view_as(student_logp)
    return (teacher_logp.exp() * values).sum(-1)


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
