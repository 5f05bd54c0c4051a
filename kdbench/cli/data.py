"""`kdbench data`: fetch a suite's records, see what is there, and what a run trained on."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdbench.base.errors import UserError
from kdbench.base.templates import render
from kdbench.cli.echo import echo
from kdbench.cli.options import DATA_DIR, JSON, OUT, PLUGIN, SETTINGS, load_plugins

if TYPE_CHECKING:
    from kdbench.config.schema import Split, Template
    from kdbench.data.record import Record


@click.group("data")
def command() -> None:
    """Fetch a suite's records (pull), check those that are there, or show a run's batch."""


@command.command("pull")
@click.argument("suite")
@SETTINGS
@PLUGIN
def pull(suite: str, settings: tuple[str, ...], plugins: tuple[Path, ...]) -> None:
    """Fetch or make the files of SUITE (a name or a .yaml file) and show their licences."""
    from kdbench.config.load import load_suite
    from kdbench.data.files import from_hub, locate
    from kdbench.data.records import splits_of

    data = load_suite(suite, settings)
    load_plugins(plugins)
    if not data.data.generator and not from_hub(data.data):
        raise UserError(
            f"suite {data.name}: not all of its files name a dataset on the hub (data.*.hub); "
            "--data-dir FOLDER says where they lie"
        )
    rows = [(name, split, "") for name, split in splits_of(data.data).items()]
    text = render("cli/data.txt", folder=locate(data, None), rows=rows, remarks=())
    echo(text, nl=False)


@command.command("check")
@click.argument("suite")
@SETTINGS
@DATA_DIR
@PLUGIN
def check(
    suite: str, settings: tuple[str, ...], data_dir: Path | None, plugins: tuple[Path, ...]
) -> None:
    """Say of each file of SUITE whether it is there and the pinned one, and how many rows it has.

    Below stands what is allowed and yet moves scores, such as prompts that are trained on too.
    Nothing is fetched. Exit code 2 where a file is missing, broken or not the pinned one.
    """
    from kdbench.config.load import load_suite
    from kdbench.data.files import is_local, place
    from kdbench.data.records import remarks, splits_of

    data = load_suite(suite, settings).data
    load_plugins(plugins)
    folder = place(data, data_dir)
    local = is_local(data, data_dir)
    rows, wrong, found = [], [], {}
    for name, split in splits_of(data).items():
        records, state, message = _state(folder, split, name, data.template, local=local)
        rows.append((name, split, state))
        if message:
            wrong.append(message)
        if records:
            found[name] = records
    text = render("cli/data.txt", folder=folder, rows=rows, remarks=remarks(found))
    echo(text, nl=False)
    if wrong and not folder.exists() and data_dir is None:
        raise UserError(f"nothing is there yet: kdbench data pull {suite}")
    if wrong:
        raise UserError("\n".join(wrong))


@command.command("batch")
@click.argument("name", metavar="RUN")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--step", type=int, required=True, help="As train.jsonl counts them, from 1.")
@DATA_DIR
@PLUGIN
@OUT
@JSON
def batch(
    name: str,
    seed: int,
    step: int,
    data_dir: Path | None,
    plugins: tuple[Path, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Show the batch of one step of RUN, for example one at which a loss spiked (spikes.csv)."""
    from kdbench.data.files import locate
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.batch import batch_of
    from kdbench.runs.folder import find_run

    run = find_run(name, out)
    load_plugins(plugins)
    suite = run.spec.shared.suite
    sequences = batch_of(run, Artifacts(suite, locate(suite, data_dir)), seed, step)
    if as_json:
        echo(json.dumps([dataclasses.asdict(one) for one in sequences], indent=2))
        return
    for one in sequences:
        echo(f"--- row {one.row}\n{one.prompt}\n=> {one.response}")


def _state(
    folder: Path, split: "Split", name: str, template: "Template", *, local: bool
) -> tuple[list["Record"], str, str]:
    """The records that are used of a file, what to say of it, and what is wrong with it."""
    from kdbench.data.records import check_file, read_split

    try:
        records = read_split(folder, split, template)
    except UserError as error:
        missing = not (folder / split.path).exists()
        return [], "missing" if missing else "broken", str(error)
    rows = f"{len(records):,} rows"
    try:
        check_file(folder / split.path, split, name, local=local)
    except UserError as error:
        return records, f"{rows}, not the pinned file", str(error)
    pin = split.sha256 if local else split.hub_sha256
    return records, f"{rows}, digest {'fits' if pin else 'not pinned'}", ""
