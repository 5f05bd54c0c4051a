"""`kdbench batch`: what a run trained on in one step."""

import dataclasses
import json
from pathlib import Path

import click

from kdbench.cli.options import DATA_DIR, JSON, OUT


@click.command("batch")
@click.argument("name", metavar="RUN")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--step", type=int, required=True, help="As train.jsonl counts them, from 1.")
@DATA_DIR
@OUT
@JSON
def command(
    name: str, seed: int, step: int, data_dir: Path | None, out: Path, as_json: bool
) -> None:
    """Show the batch of one step of RUN, for example one at which a loss spiked (spikes.csv)."""
    from kdbench.data.files import locate
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.batch import batch_of
    from kdbench.runs.folder import find_run

    run = find_run(name, out)
    suite = run.spec.shared.suite
    sequences = batch_of(run, Artifacts(suite, locate(suite, data_dir)), seed, step)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in sequences], indent=2))
        return
    for one in sequences:
        click.echo(f"--- row {one.row}\n{one.prompt}\n=> {one.response}")
