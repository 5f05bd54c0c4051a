"""The run of the candidates, inside the folder of the run that it is for, and what dev chose.

The candidates are trained with seeds of their own: the training that won is lucky, and would lift
the mean of the row it was chosen for.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.schema import DEV
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.plan import Plan
from kdbench.pipeline.tuning import METRIC, with_neighbours
from kdbench.runs.folder import Run, TrialFiles
from kdbench.variants.objective import LR
from kdbench.variants.variant import Variant

FIRST_SEED = 1000
"""Training seeds of the candidates begin here."""


def tuning_run(run: Run) -> Run:
    """The folder of a run's candidates."""
    return Run(run.path / "tuning")


def nested_plan(plan: Plan) -> Plan:
    """The run of all candidates: the same suite, which also answers and scores dev."""
    assert plan.tuning is not None
    suite = plan.artifacts.suite
    sets = {**suite.data.evaluation, DEV: suite.data.dev}
    data = suite.data.model_copy(update={"evaluation": sets})
    suite = suite.model_copy(update={"data": data})
    return replace(
        plan,
        artifacts=Artifacts(suite, plan.artifacts.data_folder),
        shared=plan.shared.model_copy(update={"suite": suite}),
        variants=plan.tuning.variants,
        seeds=plan.tuning.seeds,
        first_seed=FIRST_SEED,
        init_seeds=1,
        run=tuning_run(plan.run),
        tuning=None,
        lr_sensitivity=False,
    )


def chosen_plan(plan: Plan) -> Plan:
    """Chooses on dev, records it in tuning.json, and lays out the run of what was chosen.

    The best mean on dev is chosen, the first of equals; a candidate that diverged only where all
    did. An objective of which a candidate is not finished is left out.

    Raises:
        UserError: that is so of every objective.
    """
    assert plan.tuning is not None
    nested = nested_plan(plan)
    path = plan.run.path / "tuning.json"
    objectives = store.read_json(path)["objectives"] if path.exists() else {}
    chosen: dict[str, Variant] = {}
    unfinished = ""
    for label, group in plan.tuning.candidates.items():
        if missing := _unfinished(nested, group):
            unfinished = str(missing[0])
            continue
        entries = [_entry(nested, variant) for variant in group]
        best = max(
            range(len(group)), key=lambda i: (not entries[i]["diverged"], entries[i][DEV], -i)
        )
        objectives[label] = {"chosen": entries[best]["variant"], "candidates": entries}
        chosen[group[best].full_name] = group[best]
    if not chosen:
        raise UserError(f"{unfinished} is not finished; give the same command again")
    store.write_json(path, {**plan.tuning.budget.model_dump(), "objectives": objectives})
    variants = list(chosen.values())
    if plan.lr_sensitivity:
        variants = with_neighbours(variants, plan.artifacts.suite.recipe.lr)
    return replace(plan, variants=variants)


def _unfinished(nested: Plan, group: Sequence[Variant]) -> list[Path]:
    """The folders of candidates that are not done."""
    trials = [trial.files(nested.run) for trial in nested.trials if trial.variant in group]
    return [files.path for files in trials if files.done is None]


def _entry(nested: Plan, variant: Variant) -> dict[str, Any]:
    trials = [trial.files(nested.run) for trial in nested.trials if trial.variant == variant]
    endings = [files.done for files in trials]
    return {
        "variant": variant.name,
        LR: variant.lr or nested.artifacts.suite.recipe.lr,
        "params": variant.plain_params(),
        DEV: sum(map(_dev_score, trials)) / len(trials),
        "diverged": any(done is not None and done.status == "diverged" for done in endings),
    }


def _dev_score(files: TrialFiles) -> float:
    filters = [("set", "=", DEV), ("metric", "=", METRIC)]
    values = pq.read_table(files.scores_path, filters=filters)["value"].to_numpy()
    return float(values.mean())
