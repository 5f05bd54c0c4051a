"""`kdbench plan`: what a run would do, before it does."""

import json
from typing import Any

import click

from kdbench.cli.options import JSON, request_options, to_request
from kdbench.plan import Plan, cost, make_plan


@click.command("plan")
@request_options
@JSON
def command(as_json: bool, **given: Any) -> None:
    """Print trials, tokens, cache and time of a run without starting it (= run --dry-run)."""
    show(make_plan(to_request(**given)), as_json=as_json)


def show(plan: Plan, *, as_json: bool) -> None:
    """Prints the cost of a plan."""
    figures = cost(plan)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    click.echo(
        f"run {figures['run']}: {len(figures['variants'])} variants, {figures['seeds']} seeds"
    )
    click.echo(f"  variants   {', '.join(figures['variants'])}")
    click.echo(f"  trials     {figures['trials_to_do']} of {figures['trials']} to do")
    click.echo(f"  training   {_count(figures['training_tokens'], 'tokens')}")
    click.echo(f"  generation {figures['answers_to_generate']:,} answers")
    click.echo(f"  teacher    {_bytes(figures['teacher_cache_bytes'])} of hidden states")
    for what, present in figures["cached"].items():
        click.echo(f"  {'cached' if present else 'to make':10} {what}")
    click.echo(f"  time       {_seconds(figures['estimated_seconds'])} with {figures['jobs']} jobs")


def _count(value: int | None, unit: str) -> str:
    return (
        f"number of {unit} known once the data are encoded"
        if value is None
        else f"{value:,} {unit}"
    )


def _bytes(value: int | None) -> str:
    return "size known once the data are encoded:" if value is None else f"{value / 1e6:,.1f} MB"


def _seconds(value: float | None) -> str:
    if value is None:
        return "known once a first trial is done;"
    return f"about {value / 60:.1f} min" if value >= 60 else f"about {value:.0f} s"
