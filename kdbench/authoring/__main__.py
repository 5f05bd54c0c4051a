"""`python -m kdbench.authoring docs`: writes docs/objectives.md and its pictures anew."""

from pathlib import Path

import click

from kdbench.authoring.catalogue import stale, write


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail where something is out of date.")
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path, check: bool) -> None:
    """Write the page of objectives and its pictures into FOLDER."""
    if not check:
        write(folder)
    elif old := stale(folder):
        raise click.ClickException(
            f"out of date in {folder}: {', '.join(old)}; run: python -m kdbench.authoring {folder}"
        )


if __name__ == "__main__":
    main()
