"""`kdbench data`: fetch a suite's records, and see what is there."""

from pathlib import Path
from typing import Any

import click

from kdbench.cli.options import DATA_DIR, SETTINGS
from kdbench.errors import UserError


@click.group("data")
def command() -> None:
    """Fetch a suite's records (pull), or say what is there and whose digest fits (check)."""


@command.command("pull")
@click.argument("suite")
@SETTINGS
def pull(suite: str, settings: tuple[str, ...]) -> None:
    """Fetch or make the files of SUITE (a name or a .yaml file) and show their licences."""
    from kdbench.data.records import from_hub, locate, splits_of
    from kdbench.suites import load_suite

    data = load_suite(suite, settings)
    if not data.data.generator and not from_hub(data.data):
        raise UserError(
            f"suite {data.name}: its records are on no hub (data.*.hub); "
            "--data-dir FOLDER says where they lie"
        )
    folder = locate(data, None)
    click.echo(f"{folder}")
    for name, split in splits_of(data.data).items():
        click.echo(f"  {name:<12} {split.path:<24} {_terms(split)}")


@command.command("check")
@click.argument("suite")
@SETTINGS
@DATA_DIR
def check(suite: str, settings: tuple[str, ...], data_dir: Path | None) -> None:
    """Say of each file of SUITE: is it there, does its digest fit, how many rows.

    Nothing is fetched. Exit code 2 where a file is missing, broken or not the pinned one.
    """
    from kdbench.data.records import place, splits_of
    from kdbench.suites import load_suite

    data = load_suite(suite, settings)
    folder = place(data.data, data_dir)
    click.echo(f"{folder}")
    wrong = []
    for name, split in splits_of(data.data).items():
        state, message = _state(folder, split, name)
        click.echo(f"  {name:<12} {split.path:<24} {state:<34} {_terms(split)}")
        wrong += [message] if message else []
    if wrong:
        raise UserError("\n".join(wrong))


def _state(folder: Path, split: Any, name: str) -> tuple[str, str]:
    """What to say of a file, and what is wrong with it."""
    from kdbench.data.records import check_digest, read_split

    try:
        rows = len(read_split(folder, split))
    except UserError as error:
        missing = not (folder / split.path).is_file()
        return "missing" if missing else "broken", str(error)
    try:
        check_digest(folder / split.path, split, name)
    except UserError as error:
        return f"{rows:,} rows, another digest", str(error)
    return f"{rows:,} rows, digest {'fits' if split.sha256 else 'not pinned'}", ""


def _terms(split: Any) -> str:
    kept = "" if split.redistribute else ", not to be redistributed"
    return f"{split.license or 'licence not stated'}{kept}"
