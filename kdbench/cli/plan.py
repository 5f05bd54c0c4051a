"""`kdbench plan`: what a run would do, before it does."""

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import click

from kdbench.base.templates import render
from kdbench.cli.echo import echo
from kdbench.cli.options import JSON, load_plugins, request_options

if TYPE_CHECKING:
    from kdbench.pipeline.plan import Plan, Request
    from kdbench.pipeline.trial import Trial


@click.command("plan")
@request_options
@JSON
def command(as_json: bool, **given: Any) -> None:
    """Print trials, tokens, cache, memory and time of a run without starting it (run --dry-run).

    Models on the hub are not downloaded: until they are, memory and operations are all it says.
    """
    from kdbench.pipeline.plan import Request

    show_request(Request(**given), as_json=as_json)


def show_request(request: "Request", *, as_json: bool = False) -> None:
    """Prints the cost of what is asked for, on paper where its models are not here yet."""
    from kdbench.config.load import load_suite
    from kdbench.models.weights import at_hand
    from kdbench.pipeline.estimate import cost_on_paper
    from kdbench.pipeline.plan import make_plan

    suite = load_suite(request.suite, request.settings)
    load_plugins(request.plugins)
    models = (suite.teacher, suite.student)
    away = [model.hub for model in models if not at_hand(model)]
    if away and all(model.shape or at_hand(model) for model in models):
        _print(cost_on_paper(request, suite, away), "paper.txt", as_json=as_json)
    else:
        show(make_plan(request), as_json=as_json)


def show(plan: "Plan", *, as_json: bool, accepted: "Collection[Trial]" = ()) -> None:
    """Prints the cost of a plan but for accepted trials, and first that of its candidates."""
    from kdbench.pipeline.estimate import cost

    figures = cost(plan, accepted)
    if plan.tuning is not None:
        from kdbench.pipeline.tuned_plan import nested_plan

        figures["tuning"] = cost(nested_plan(plan))
    budget = 0 if plan.tuning is None else plan.tuning.trials
    _print(figures, "plan.txt", as_json=as_json, budget=budget)


def _print(figures: dict[str, Any], template: str, *, as_json: bool, **more: Any) -> None:
    text = json.dumps(figures, indent=2) + "\n"
    if not as_json:
        text = render(f"cli/{template}", it=figures, **more)
    echo(text, nl=False)
