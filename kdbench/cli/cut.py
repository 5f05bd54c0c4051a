"""`kdbench cut`: which layers a suite's student can do without."""

from pathlib import Path

import click

from kdbench.cli.echo import echo
from kdbench.cli.options import DATA_DIR, PLUGIN, SETTINGS, load_plugins


@click.command("cut")
@click.argument("suite")
@DATA_DIR
@SETTINGS
@PLUGIN
@click.option("--rows", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--drop", type=click.IntRange(min=1), default=6, show_default=True, help="Layers to leave out."
)
def command(
    suite: str,
    data_dir: Path | None,
    settings: tuple[str, ...],
    plugins: tuple[Path, ...],
    rows: int,
    drop: int,
) -> None:
    """Say how much each layer of SUITE's student matters, and which to keep (`keep_layers`)."""
    from kdbench.config.load import load_suite
    from kdbench.data.files import locate
    from kdbench.pipeline.artifacts import Artifacts
    from kdbench.pipeline.cut import cuts

    loaded = load_suite(suite, settings)
    load_plugins(plugins)
    whole: float | None = None
    kept: tuple[int, ...] = ()
    for cut in cuts(Artifacts(loaded, locate(loaded, data_dir).resolve()), rows, drop):
        if whole is None:
            whole = cut.loss
            echo(f"all {len(cut.kept)} layers: {whole:.3f} nats a response token")
        else:
            left_out = ", ".join(map(str, cut.left_out))
            echo(f"without {left_out}: {cut.loss:.3f} ({cut.loss - whole:+.3f})")
        kept = cut.kept
    echo(f"keep_layers: {list(kept)}")
