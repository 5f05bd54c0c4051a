"""The flags that several commands share; they mean the same everywhere."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), help="Folder of all runs."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
SUITE = click.option("--suite", default="instruct", show_default=True, help="Name or .yaml file.")
SEEDS = click.option("--seeds", type=int, help="Training seeds.  [default: the suite's, often 3]")
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Changes a field of the suite, e.g. recipe.lr=0.001; may be repeated.",
)
JOBS = click.option("--jobs", type=click.IntRange(min=1), help="Trials side by side.")
MICRO_BATCH = click.option(
    "--micro-batch",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Rows at a time, to save memory; gradients add up over the batch.  [default: all of it]",
)
BACKEND = click.option(
    "--backend",
    type=click.Choice(["vllm", "transformers"]),
    help="What generates.  [default: vllm where it is installed]",
)
COMPILE = click.option(
    "--compile/--no-compile",
    default=None,
    help="torch.compile the per-token objective.  [default: on a GPU]",
)
MIX_CODE = click.option(
    "--mix-code",
    is_flag=True,
    help="Add to trials that other code of kdbench made; the table says so.",
)
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder below which the suite's data files lie.",
)
PLUGIN = click.option(
    "--plugin",
    "plugins",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A Python file that registers objectives or makes a suite's records; may be repeated.",
)


def read_budget(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """The number of candidates; None for `fixed`."""
    if value == "fixed":
        return None
    if not value.isdecimal() or len(value) > 18 or int(value) < 2:
        raise click.BadParameter(
            f"'{value[:20]}' is neither fixed nor a number of candidates from 2"
        )
    return int(value)


def _options(*options: Command) -> Callable[[Command], Command]:
    """One decorator for several, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


execution_options = _options(
    OUT, SETTINGS, JOBS, MICRO_BATCH, BACKEND, COMPILE, MIX_CODE, DATA_DIR, PLUGIN
)
"""Where a run lies, what it changes in the suite, and how it is executed."""

request_options = _options(
    SUITE,
    click.option(
        "--objectives",
        default="all",
        show_default=True,
        help="all, core, names, globs, variants: sft,amid*,jsd[beta=0.9].",
    ),
    SEEDS,
    click.option(
        "--init-seeds",
        type=int,
        default=1,
        show_default=True,
        help="Initial students, each trained with every training seed.",
    ),
    click.option(
        "--tuning",
        metavar="fixed|K",
        callback=read_budget,
        default="fixed",
        show_default=True,
        help="fixed, or the number of candidates of every objective, chosen on dev.",
    ),
    click.option(
        "--tuning-seeds",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Trainings of every candidate.",
    ),
    click.option(
        "--lr-sensitivity",
        is_flag=True,
        help="Also run every variant at half and at twice its learning rate.",
    ),
    click.option("--name", help="Name of the run.  [default: the suite's]"),
    execution_options,
)
"""Everything that says what to run."""


def load_plugins(plugins: Sequence[Path]) -> None:
    """Imports the files given with `--plugin`."""
    from kdbench.variants.select import load_plugin

    for path in plugins:
        load_plugin(path.resolve())
