"""`python -m kdbench.suites.cut SUITE`: which layers a student can do without.

A student that is cut from a checkpoint (`student.keep_layers`) writes fluent text after a short fit
only where the cut is light and spares the layers that matter. This measures which do: the mean loss
on the gold responses of some training rows without each layer in turn; then, of the least
influential, it leaves out one after another, each time the one whose loss costs least.
"""

from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from kdbench.base.errors import UserError
from kdbench.cli.options import DATA_DIR, SETTINGS
from kdbench.config.load import load_suite
from kdbench.data.batches import MicroBatch, micro_batches
from kdbench.data.encode import Encoded
from kdbench.data.files import locate
from kdbench.models.model import head_of, hidden_states, layer_list, load, pick_device
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.build import prepare

ROWS_AT_A_TIME = 16


@click.command()
@click.argument("suite")
@DATA_DIR
@SETTINGS
@click.option("--rows", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--drop", type=click.IntRange(min=1), default=6, show_default=True, help="Layers to leave out."
)
def main(
    suite: str, data_dir: Path | None, settings: tuple[str, ...], rows: int, drop: int
) -> None:
    """Print how much each layer of the student's checkpoint matters, and the cut that follows."""
    loaded = load_suite(suite, settings)
    artifacts = Artifacts(loaded, locate(loaded, data_dir).resolve())
    folder = artifacts.checkpoint("student")
    if folder is None:
        raise UserError(f"suite {loaded.name}: its student is made from scratch: nothing to cut")
    prepare(artifacts)
    data = Encoded.load(artifacts.encoded / "train.safetensors")
    rows = min(rows, len(data))
    batches = list(micro_batches(data, torch.arange(rows), ROWS_AT_A_TIME))
    trusted = loaded.student.trust_remote_code
    model = load(folder, pick_device(), trust_remote_code=trusted).eval()
    vocabulary = artifacts.vocabulary
    parent, name = layer_list(model)
    layers = list(getattr(parent, name))
    if drop >= len(layers):
        raise UserError(f"--drop {drop}: the checkpoint has {len(layers)} layers")

    def without(left_out: set[int]) -> float:
        kept = [layer for index, layer in enumerate(layers) if index not in left_out]
        setattr(parent, name, nn.ModuleList(kept))
        model.config.num_hidden_layers = len(kept)
        return mean_loss(model, vocabulary, batches)

    whole = without(set())
    click.echo(f"all {len(layers)} layers: {whole:.3f} nats a response token, {rows} rows")
    alone = {}
    for index in range(len(layers)):
        alone[index] = without({index})
        click.echo(f"without {index:3}: {alone[index]:.3f} ({alone[index] - whole:+.3f})")
    # Layers that are weak alone may stand in for one another, so that each is chosen anew.
    candidates = sorted(alone, key=alone.__getitem__)[: 2 * drop]
    left_out: set[int] = set()
    for _ in range(drop):
        losses = {index: without(left_out | {index}) for index in candidates}
        best = min(losses, key=losses.__getitem__)
        left_out.add(best)
        candidates.remove(best)
        click.echo(f"without {sorted(left_out)}: {losses[best]:.3f} ({losses[best] - whole:+.3f})")
    kept = [index for index in range(len(layers)) if index not in left_out]
    click.echo(f"keep_layers: {kept}")


@torch.no_grad()
def mean_loss(model: Any, vocabulary: int, batches: list[MicroBatch]) -> float:
    """The cross-entropy of a model on response tokens, in nats a token."""
    total, tokens = 0.0, 0
    head = head_of(model, vocabulary)
    for batch in batches:
        moved = batch.to(model.device)
        logits = head.logits(hidden_states(model, moved.tokens, moved.positions))
        total += float(nn.functional.cross_entropy(logits, moved.labels, reduction="sum"))
        tokens += len(moved.labels)
    return total / tokens


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except UserError as error:
        raise SystemExit(f"Error: {error}") from error
