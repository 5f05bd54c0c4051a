"""`kdbench export`: a run's rows in the formats of other tools."""

from pathlib import Path
from typing import Any

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import OUT


@click.command("export")
@click.argument("name", metavar="RUN")
@OUT
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "duckdb", "csv", "lm-eval"]),
    required=True,
    help="A folder of tables, a database file, or lm-evaluation-harness's layout.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder, or file for duckdb.  [default: RUN/export/FORMAT]",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option(
    "--include-withheld",
    is_flag=True,
    help="Also prompts and references that the suite marks redistribute: false.",
)
def command(name: str, out: Path, kind: Any, output: Path | None, **flags: bool) -> None:
    """Write all rows of RUN: variants, trials, scores, answers, logs and tables."""
    from kdbench.runs.folder import find_run

    run = find_run(name, out)

    from kdbench.report.export import export

    done = export(run, kind, output, **flags)
    echo(f"exported to {done.path}: {', '.join(f'{n} {k}' for k, n in done.rows.items())}")
    if done.open_trials:
        echo(f"{done.open_trials} trials are not finished: no scores or answers of theirs")
    if done.withheld:
        echo(
            f"left out: prompts and references of {', '.join(done.withheld)}, which the suite "
            "marks redistribute: false (--include-withheld writes them, for your own use)"
        )
