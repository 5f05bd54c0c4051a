"""`kdbench plan`: what a run would do, before it does."""

import json
from collections.abc import Collection
from typing import Any

import click

from kdbench.cli.options import JSON, request_options, to_request
from kdbench.config.load import load_suite
from kdbench.config.schema import Suite
from kdbench.models.weights import at_hand
from kdbench.pipeline.estimate import cost, device_memory, guess_counts, has_gpu
from kdbench.pipeline.paper import on_paper
from kdbench.pipeline.plan import Plan, Request, make_plan
from kdbench.pipeline.trial import Trial


@click.command("plan")
@request_options
@JSON
def command(as_json: bool, **given: Any) -> None:
    """Print trials, tokens, cache, memory and time of a run without starting it (run --dry-run).

    Models on the hub are not downloaded: until they are, memory and operations are all it says.
    """
    show_request(to_request(**given), as_json=as_json)


def show_request(request: Request, *, as_json: bool = False) -> None:
    """Prints the cost of what is asked for, on paper where its models are not here yet."""
    suite = load_suite(request.suite, request.settings)
    models = {"teacher": suite.teacher, "student": suite.student}
    away = [model.hub for model in models.values() if not at_hand(model)]
    if away and all(model.shape or at_hand(model) for model in models.values()):
        _show_on_paper(request, suite, away, as_json=as_json)
    else:
        show(make_plan(request), as_json=as_json)


def show(plan: Plan, *, as_json: bool, accepted: Collection[Trial] = ()) -> None:
    """Prints the cost of a plan, and first that of the candidates it has to choose from.

    Args:
        plan: what is to run.
        as_json: print JSON.
        accepted: trials that a board has already.
    """
    figures = cost(plan, accepted)
    if plan.tuning is not None:
        from kdbench.pipeline.tuned_plan import nested_plan

        figures["tuning"] = cost(nested_plan(plan))
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    if plan.tuning is not None:
        _show(figures["tuning"])
        click.echo(f"  budget     {plan.tuning.trials} candidates of each objective; dev chooses")
        click.echo("then, with the first candidates in the place of those that dev will choose:")
    _show(figures)


def _show(figures: dict[str, Any]) -> None:
    several = f", {figures['init_seeds']} initial students" if figures["init_seeds"] > 1 else ""
    click.echo(
        f"run {figures['run']}: {len(figures['variants'])} variants, {figures['seeds']} seeds"
        f"{several}"
    )
    click.echo(f"  variants   {', '.join(figures['variants'])}")
    click.echo(f"  trials     {figures['trials_to_do']} of {figures['trials']} to do")
    tokens = f"{figures['training_tokens']:,} tokens ({figures['token_counts']})"
    click.echo(f"  training   {tokens}")
    if figures["tokens_to_sample_in_training"]:
        click.echo(
            f"  sampling   {figures['tokens_to_sample_in_training']:,} tokens in training, at most"
        )
    click.echo(f"  generation {figures['answers_to_generate']:,} answers")
    click.echo(f"  teacher    {figures['teacher_cache_bytes'] / 1e6:,.1f} MB of hidden states")
    for what, present in figures["cached"].items():
        click.echo(f"  {'cached' if present else 'to make':10} {what}")
    _show_memory(figures["memory"])
    minutes = figures["estimated_seconds"] / 60
    click.echo(f"  time       very roughly {minutes:.1f} minutes with {figures['jobs']} jobs")


def _show_on_paper(request: Request, suite: Suite, away: list[str], *, as_json: bool) -> None:
    """Records are guessed from where they lie, and without them every row is the longest."""
    from kdbench.data.files import place

    counts = None
    folder = place(suite.data, request.data_dir)
    if all((folder / split.path).exists() for split in (suite.data.train, suite.data.dev)):
        counts = guess_counts(suite, folder)
    length = suite.data.max_length
    memory = on_paper(
        suite,
        rows=request.micro_batch or suite.recipe.batch,
        length=length,
        mean_length=None if counts is None else counts.mean_length,
        mean_response=None if counts is None else counts.mean_response,
        gpu=has_gpu(),
    )
    memory |= device_memory(memory, 1)
    rows = suite.recipe.steps * suite.recipe.batch
    figures: dict[str, Any] = {
        "suite": suite.name,
        "not_here": away,
        "training_tokens_at_most": rows * length,
    }
    if counts is not None:
        figures["training_tokens_guessed"] = round(rows * counts.mean_length)
        figures["teacher_cache_bytes"] = counts.cached_tokens * memory["cached_token"]
    if as_json:
        click.echo(json.dumps({**figures, "memory": memory}, indent=2))
        return
    click.echo(f"suite {suite.name}: {' and '.join(away)} not downloaded yet; on paper")
    if counts is None:
        click.echo(f"  training   {rows * length:,} tokens a trial, at most (--data-dir guesses)")
        click.echo(
            f"  teacher    {memory['cached_token'] / 1e3:,.1f} kB of hidden states a response "
            "token (--data-dir says how many)"
        )
    else:
        tokens, size = figures["training_tokens_guessed"], figures["teacher_cache_bytes"]
        click.echo(f"  training   {tokens:,} tokens a trial (guessed from words)")
        click.echo(f"  teacher    {_gb(size)} GB of hidden states (guessed from words)")
    _show_memory(memory)


def _show_memory(memory: dict[str, Any]) -> None:
    parts = ("weights", "optimizer", "activations", "teacher_head", "chunk")
    listed = ", ".join(f"{part.replace('_', ' ')} {_gb(memory[part])}" for part in parts)
    click.echo(f"  memory     {_gb(memory['total'])} GB a training: {listed}")
    click.echo(f"             {_gb(memory['teacher_body'])} GB more where the teacher's body runs")
    if memory["teacher_fit"]:
        click.echo(f"             {_gb(memory['teacher_fit'])} GB to fit the teacher before that")
    click.echo(f"             {_gb(memory['checkpoint'])} GB of disk for a checkpoint")
    several = f" for {memory['processes']} at a time" if memory["processes"] > 1 else ""
    verdict = "fits" if memory["fits"] else "does not fit"
    device = f"{memory['device']}, {_gb(memory['device_bytes'])} GB"
    hint = "" if memory["fits"] else "; --micro-batch ROWS makes the activations smaller"
    click.echo(f"             {verdict}{several} ({device}){hint}")
    click.echo(f"  operations {memory['flops']:.2g} a trial, teacher from the cache")


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g}"
