"""What tuning and the learning rate did, in tables and words."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from kdbench.report.render import markdown_table
from kdbench.report.table import AVERAGE, Board
from kdbench.report.tuning_data import FACTORS, METRIC, SPLITS, Price, Sensitivity
from kdbench.stats.intervals import Interval
from kdbench.stats.ranking import Limits


def tuning_markdown(tuned: Sequence[Price], board: Board, title: str) -> str:
    """`tuning.md`: what choosing gained, by set and on average, and all candidates."""
    n_seeds, trials = tuned[0].n_seeds, max(len(price.candidates) for price in tuned)
    parts = [
        f"# Tuning: {title}",
        f"Every objective had the same {trials} candidates to choose from: the first is what was "
        "asked for, untuned (`fixed`); the others are drawn from its declared search space and a "
        "range of learning rates. Dev chose what runs in the leaderboard. This page asks what "
        "choosing is worth, from the candidates' answers to the evaluation sets "
        f"({_trainings(n_seeds)} of each).",
        "## The price of tuning",
        "Average ROUGE-L. `on the average` takes one candidate for all sets, `per set` one for "
        f"each; a choice is made on one half of the prompts{_by_seeds(n_seeds)} and reported on "
        f"the other ({SPLITS} random halvings, both ways round). The columns with + are paired "
        f"differences with {_intervals(n_seeds)}. `as papers report` chooses and reports on the "
        "same answers: what it shows beyond the column before is no gain but the largest of "
        "several noisy figures.",
        *([] if n_seeds > 1 else [_ONE_TRAINING]),
        _price_table(tuned, AVERAGE),
        _in_words(tuned),
    ]
    if len(board.sets) > 1:
        for name in board.sets:
            parts += [f"### {name}", _price_table(tuned, name)]
    parts += ["## Candidates", "Dev chose those in bold.", _candidates(tuned)]
    return "\n\n".join(parts) + "\n"


def sensitivity_markdown(rates: Sequence[Sensitivity], board: Board, title: str) -> str:
    """`lr-sensitivity.md`: every variant at half, at once and at twice its learning rate."""
    order = sorted(range(len(FACTORS)), key=lambda place: FACTORS[place])
    n_seeds = min(item.n_seeds for item in rates)
    header = ["variant", "lr", *(f"x{FACTORS[place]:g}" for place in order), "best"]
    rows = []
    for item in rates:
        cells = []
        for place in order:
            figures = board.rows[item.names[place], AVERAGE, METRIC]
            text = _with_half(figures.mean, figures.ci_low, figures.ci_high)
            cells.append(f"**{text}**" if place == item.best else text)
        rows.append(
            [
                f"`{item.variant}`",
                f"{item.lr:g}",
                *cells,
                f"x{FACTORS[item.best]:g}",
                _signed(item.short),
                _signed(item.gain),
            ]
        )
    return (
        "\n\n".join(
            [
                f"# Sensitivity to the learning rate: {title}",
                "Average ROUGE-L at half, at once and at twice each variant's learning rate, "
                "± half the 95 % interval of the leaderboard. `x1 falls short by` is the best of "
                f"the three minus x1, paired over {_blocks(rates)}, with its 95 % t-interval: the "
                "best is the largest of three noisy figures, so it is 0 or above even where the "
                "rate does not matter. `choosing gains` is free of that: the rate is chosen on "
                f"one half of the prompts{_by_seeds(n_seeds)} and reported on the other, with "
                f"{_intervals(n_seeds)}.",
                *([] if n_seeds > 1 else [_ONE_SEED]),
                _table([*header, "x1 falls short by", "choosing gains"], rows),
                _order_in_words(rates, board),
            ]
        )
        + "\n"
    )


_ONE_TRAINING = (
    "**Each candidate was trained once**, so the candidate that looks best is partly the training "
    "that went best: the gains are too large by that luck, and speak of these trained students "
    "more than of their settings. `--tuning-seeds 2` lets one training choose and another report."
)

_ONE_SEED = (
    "**One training seed**: the rate that looks best is partly the training that went best, and "
    "`choosing gains` is too large by that luck. `--seeds 2` lets one training choose and another "
    "report."
)


def _trainings(count: int) -> str:
    return "one training" if count == 1 else f"{count} trainings"


def _by_seeds(n_seeds: int) -> str:
    return ", by the other training seeds," if n_seeds > 1 else ""


def _intervals(n_seeds: int) -> str:
    if n_seeds > 1:
        return "95 % Student-t intervals over the training seeds"
    return "95 % intervals of the bootstrap over prompts, the choice made anew in every draw"


def _blocks(rates: Sequence[Sensitivity]) -> str:
    several = all(item.n_seeds > 1 for item in rates)
    return "training seeds" if several else "prompts (one training seed)"


def _price_table(tuned: Sequence[Price], name: str) -> str:
    header = [
        "objective", "fixed", "on the average", "per set", "+ on the average", "+ per set",
        "per set + over the average", "as papers report, + on the average", "+ per set",
    ]  # fmt: skip
    rows = []
    for price in tuned:
        found, peeking, by = price.found, price.peeking, price.differences
        rows.append(
            [
                f"`{price.label}`",
                f"{found.fixed[name][0]:.2f}",
                f"{found.on_average[name]:.2f}",
                f"{found.per_set[name]:.2f}",
                _limits(by.on_average[name], 0),
                _limits(by.per_set[name], 0),
                _limits(by.set_over_average[name], None),
                _sign(peeking.on_average[name] - peeking.fixed[name][0]),
                _sign(peeking.per_set[name] - peeking.fixed[name][0]),
            ]
        )
    return _table(header, rows)


def _in_words(tuned: Sequence[Price]) -> str:
    parts = []
    for way, label in (("on_average", "one candidate for all sets"), ("per_set", "one per set")):
        limits = [getattr(price.differences, way)[AVERAGE] for price in tuned]
        better = [
            f"`{price.label}`" for price, item in zip(tuned, limits, strict=True) if item.low[0] > 0
        ]
        worse = [
            f"`{price.label}`"
            for price, item in zip(tuned, limits, strict=True)
            if item.high[0] < 0
        ]
        mean = float(np.mean([item.estimate[0] for item in limits]))
        text = (
            f"Choosing {label} gains {_sign(mean)} on average over the objectives; beyond its "
            f"interval for {', '.join(better) or 'none'}"
        )
        parts.append(f"{text}, and loses for {', '.join(worse)}." if worse else f"{text}.")
    return " ".join(parts)


def _candidates(tuned: Sequence[Price]) -> str:
    rows = []
    for price in tuned:
        for place, candidate in enumerate(price.candidates):
            name = f"`{candidate['variant']}`"
            diverged = " (diverged)" if candidate["diverged"] else ""
            rows.append(
                [
                    f"`{price.label}`" if place == 0 else "",
                    (f"**{name}**" if candidate["variant"] == price.chosen else name) + diverged,
                    f"{candidate['lr']:g}",
                    f"{candidate['dev']:.2f}",
                    f"{price.tests[place]:.2f}",
                    f"{100 * price.found.picked_on_average[place]:.0f} %",
                ]
            )
    header = ["objective", "candidate", "lr", "dev", "average of the sets", "halves that chose it"]
    return _table(header, rows)


def _order_in_words(rates: Sequence[Sensitivity], board: Board) -> str:
    at_own = [board.rows[item.variant, AVERAGE, METRIC].mean for item in rates]
    at_best = [board.rows[item.names[item.best], AVERAGE, METRIC].mean for item in rates]
    own = sum(item.best == 0 for item in rates)
    beyond = [f"`{item.variant}`" for item in rates if item.gain.low > 0]
    text = (
        f"{own} of {len(rates)} variants are best at x1. Another rate gains beyond its interval "
        f"(`choosing gains`) for {', '.join(beyond) or 'none'}."
    )
    if len(rates) < 3:
        return text
    tau = stats.kendalltau(at_own, at_best).statistic
    first = rates[int(np.argmax(at_best))].variant
    return (
        f"{text} With every variant at its best of the three, `{first}` leads (at x1 "
        f"`{rates[int(np.argmax(at_own))].variant}`), and the order agrees with that at x1 to a "
        f"Kendall tau of {tau:.2f}."
    )


def _limits(limits: Limits, candidate: int | None) -> str:
    parts = (limits.estimate, limits.low, limits.high)
    mean, low, high = (float(part if candidate is None else part[candidate]) for part in parts)
    return _signed(Interval(mean, low, high))


def _signed(interval: Interval) -> str:
    if np.isnan(interval.low):
        return _sign(interval.mean)
    return f"{_sign(interval.mean)} [{_sign(interval.low)}, {_sign(interval.high)}]"


def _sign(value: float) -> str:
    """Two decimals with a sign, none before a zero."""
    rounded = round(float(value), 2)
    return f"{rounded:+.2f}" if rounded else "0.00"


def _with_half(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} ± {(high - low) / 2:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(header, rows))
