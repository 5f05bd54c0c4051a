"""What is tried for one objective: the paper's defaults, then draws from its search space."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive
from kdbench.config.identity import Budget
from kdbench.config.schema import DEV, Suite
from kdbench.variants.objective import LR
from kdbench.variants.parameters import Choice, Number, Value
from kdbench.variants.select import Family, families
from kdbench.variants.variant import Variant, variant_of

METRIC = "rouge_l"
"""What decides."""
FACTORS = (0.5, 2.0)
"""Of the learning rate, beside 1, in the sensitivity that `--lr-sensitivity` shows."""
LR_FACTOR = 4.0
"""The learning rate is looked for between the suite's over this and the suite's times this."""
DIGITS = 3
"""Significant digits of a drawn number: names stay readable."""
ATTEMPTS = 20
"""Draws per candidate before giving up on finding different ones."""


@dataclass(frozen=True)
class Tuning:
    """Equal budgets: what is tried for each objective.

    Attributes:
        trials: candidates of every objective.
        seeds: trainings of every candidate.
        candidates: by the objective's label; the first is what was asked for, not tuned.
    """

    trials: int
    seeds: int
    candidates: Mapping[str, list[Variant]]

    @property
    def variants(self) -> list[Variant]:
        """The candidates of all objectives, each once."""
        every = [variant for group in self.candidates.values() for variant in group]
        return list({variant.full_name: variant for variant in every}.values())

    @property
    def budget(self) -> Budget:
        """What spec.yaml of the main run says."""
        return Budget(trials=self.trials, seeds=self.seeds, split=DEV, metric=METRIC)


@dataclass(frozen=True)
class Range:
    """Numbers between two limits, evenly or evenly in their logarithm."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Range | tuple[Value, ...]]
"""Per parameter, where it is looked for: a range, or a few values."""


def tuning_of(objectives: str, trials: int, seeds: int, suite: Suite) -> Tuning:
    """The candidates for a list of objectives."""
    found = {
        family.label: candidates(family, trials, suite=suite.name, lr=suite.recipe.lr)
        for family in families(objectives)
    }
    return Tuning(trials, seeds, found)


def with_neighbours(variants: list[Variant], lr: float) -> list[Variant]:
    """Every variant, and after it the same at half and at twice its learning rate; each once."""
    found = {}
    for variant in variants:
        rates = [(variant.lr or lr) * factor for factor in FACTORS]
        for each in (variant, *(replace(variant, lr=rate) for rate in rates)):
            found[each.full_name] = each
    return list(found.values())


def search_space(family: Family, lr: float) -> Space:
    """What of an objective is tuned: the learning rate, and what it declares and nobody wrote.

    Declared are values in the objective's `grid`, the words of a choice, and numbers with finite
    bounds or a `search` of their own. Switches, divergences inside the objective, and parameters of
    the source of sequences say which method it is, and stay. `lr` is the suite's learning rate.
    """
    space: dict[str, Range | tuple[Value, ...]] = {}
    if LR not in family.fixed:
        space[LR] = Range(lr / LR_FACTOR, lr * LR_FACTOR, log=True)
    objective = family.variant.objective
    for name, declared in objective.parameters.items():
        if name in family.fixed:
            continue
        if name in objective.grid:
            space[name] = objective.grid[name]
        elif isinstance(declared, Choice):
            space[name] = declared.options
        elif isinstance(declared, Number) and (limits := declared.searched()) is not None:
            space[name] = Range(*limits)
    return space


def candidates(family: Family, trials: int, *, suite: str, lr: float) -> list[Variant]:
    """So many different variants, first the objective as it was asked for.

    The suite's name seeds the draws: the same call gives the same, and more begin with the fewer.

    Raises:
        UserError: nothing is left to tune, or there are not so many different candidates; optuna
            is not installed.
    """
    space = search_space(family, lr)
    if not space:
        raise UserError(
            f"{family.label}: nothing is left to tune; write it without some of its parameters, or "
            "leave out --tuning"
        )
    start = family.variant
    found = {(start if LR not in space else _with(start, {LR: lr})).full_name: start}
    draws = _draws(start, space, derive("tuning", suite, family.label), lr)
    for _ in range(ATTEMPTS * trials):
        if len(found) == trials:
            return list(found.values())
        drawn = next(draws)
        try:
            variant = _with(start, drawn)
        except UserError:  # at an open end of its range, or refused by the objective's own check
            continue
        found.setdefault(variant.full_name, variant)
    raise UserError(
        f"{family.label}: only {len(found)} different candidates, and --tuning {trials} asks for "
        f"{trials}; tune less, or write fewer of its parameters"
    )


def _with(variant: Variant, values: Mapping[str, Value]) -> Variant:
    own = {} if variant.lr is None else {LR: variant.lr}
    given = {**variant.params, **own, **values}
    return variant_of(variant.objective, given).drawn_from(variant.sequences)


def _draws(start: Variant, space: Space, seed: int, lr: float) -> Iterator[dict[str, Value]]:
    """Scrambled Sobol points, so that few draws already lie far apart; words independently.

    Quasi-Monte Carlo and not a sampler that learns from scores (such as TPE): the candidates are
    known before anything is trained, so they can run side by side and cannot depend on the noise
    of earlier ones.
    """
    optuna = _optuna()
    distributions = {
        name: optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
        if isinstance(axis, Range)
        else optuna.distributions.CategoricalDistribution(axis)
        for name, axis in space.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=seed % 2**32,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed % 2**32),
            warn_independent_sampling=False,
        )
    study = optuna.create_study(sampler=sampler)
    # The sampler takes the space from the first trial that has ended.
    first = {name: _inside(space[name], {LR: lr, **start.params}[name]) for name in space}
    study.add_trial(optuna.trial.create_trial(params=first, distributions=distributions, value=0.0))
    while True:
        drawn = study.ask(distributions).params
        yield {
            name: float(f"{value:.{DIGITS}g}") if isinstance(space[name], Range) else value
            for name, value in drawn.items()
        }


def _inside(axis: Range | tuple[Value, ...], value: Any) -> Any:
    if isinstance(axis, Range):
        return min(max(value, axis.low), axis.high)
    return value if value in axis else axis[0]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "--tuning needs optuna, which is not installed: pip install 'kdbench[tuning]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
