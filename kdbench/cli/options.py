"""The flags that several commands share; they mean the same everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kdbench.plan import Request

Command = Callable[..., Any]

OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), help="Folder of all runs."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
PLUGIN = click.option(
    "--plugin",
    "plugins",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A Python file that registers objectives; may be repeated.",
)


def request_options(command: Command) -> Command:
    """Everything that says what to run."""
    options = [
        click.option("--suite", default="instruct", show_default=True, help="Name or .yaml file."),
        click.option(
            "--objectives",
            default="all",
            show_default=True,
            help="all, core, names, globs, variants: sft,amid*,jsd[beta=0.9].",
        ),
        click.option("--seeds", type=int, help="Training seeds.  [default: the suite's, often 3]"),
        click.option("--name", help="Name of the run.  [default: the suite's]"),
        OUT,
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Changes a field of the suite, e.g. recipe.lr=0.001; may be repeated.",
        ),
        click.option("--jobs", type=click.IntRange(min=1), help="Trials side by side."),
        click.option(
            "--backend",
            type=click.Choice(["vllm", "transformers"]),
            help="What generates.  [default: vllm where it is installed]",
        ),
        click.option(
            "--compile/--no-compile",
            default=None,
            help="torch.compile the per-token objective.  [default: on a GPU]",
        ),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            help="Folder below which the suite's data files lie.",
        ),
        PLUGIN,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def to_request(**given: Any) -> Request:
    """The request that the flags of `request_options` describe."""
    return Request(**given)
