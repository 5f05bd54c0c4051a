"""How large a model is, counted without its weights.

A checkpoint's model is built by transformers on the meta device, where tensors have a shape and no
memory; what is not here yet is as large as the suite states.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError, first_line
from kdbench.config.schema import Model, Shape
from kdbench.models.remote_code import forget_classes
from kdbench.models.weights import at_hand, checkpoint, read_config


@dataclass(frozen=True)
class Size:
    """A model, counted.

    Attributes:
        layers: decoder layers.
        width: of the hidden states.
        queries: width of a layer's queries together.
        keys: width of its keys, and of its values.
        mlp: inner width of its MLP.
        gated: its MLP has three matrices and not two.
        vocabulary: rows of the output head.
        body: parameters of the layers' matrices.
        parameters: all of them.
        lora: those of the adapters; 0 where the model is trained in full.
        dtype: of a checkpoint's weights; "" where it is not known.
    """

    layers: int
    width: int
    queries: int
    keys: int
    mlp: int
    gated: bool
    vocabulary: int
    body: int
    parameters: int
    lora: int = 0
    dtype: str = ""

    @property
    def head(self) -> int:
        """Parameters of the output head."""
        return self.vocabulary * self.width

    @property
    def trained(self) -> int:
        """Parameters that have a gradient and AdamW's two moments."""
        return self.lora or self.parameters

    def forward(self, context: float) -> float:
        """Operations of the body for a token that looks at `context` positions."""
        return 2 * self.body + 4 * self.layers * self.queries * context


def size_of(model: Model, role: str, vocabulary: int) -> Size:
    """Counts a model: its checkpoint where it is here, else its architecture or its `shape`.

    Raises:
        UserError: the checkpoint cannot be had, or cannot be counted.
    """
    if model.architecture is not None:
        fields = model.architecture.model_dump(exclude={"init_std"})
        size = of_shape(Shape(**fields, vocabulary=vocabulary))
    elif model.shape is not None and not model.path and (model.gguf or not at_hand(model)):
        size = of_shape(model.shape)
    else:
        size = _of_checkpoint(model, role)
    if model.lora is None:
        return size
    matrices = len(model.lora.targets) or 2  # queries and values, where none are named
    return replace(size, lora=size.layers * matrices * model.lora.rank * 2 * size.width)


def head_dim(config: Any) -> int:
    """The dimension of one head of attention; 0 where the configuration does not say it."""
    stated = getattr(config, "head_dim", None)
    width, heads = (getattr(config, key, 0) for key in ("hidden_size", "num_attention_heads"))
    return int(stated or (width // heads if heads else 0))


def positions(config: Any) -> int | None:
    """The most tokens of a sequence; None where the configuration sets no end."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    found = next((n for name in names if isinstance(n := getattr(config, name, None), int)), 0)
    return found if found > 0 else None


def of_shape(shape: Shape) -> Size:
    """Counts a model from what a suite states of it."""
    dimension = shape.head_dim or shape.width // shape.heads
    queries, keys = shape.heads * dimension, (shape.kv_heads or shape.heads) * dimension
    matrices = 2 * (queries + keys) + (3 if shape.gate else 2) * shape.mlp
    body = shape.layers * shape.width * matrices
    embeddings = (1 if shape.tied else 2) * shape.vocabulary + shape.positions
    norms = 2 * shape.layers + 1
    return Size(
        layers=shape.layers,
        width=shape.width,
        queries=queries,
        keys=keys,
        mlp=shape.mlp,
        gated=shape.gate,
        vocabulary=shape.vocabulary,
        body=body,
        parameters=body + (embeddings + norms) * shape.width,
    )


def empty_model(folder: Path, model: Model) -> Any:
    """A checkpoint's model on the meta device, for what can be told without its weights.

    Raises:
        UserError: transformers has no causal language model of that kind, or cannot build it.
    """
    config = read_config(folder, trust_remote_code=model.trust_remote_code)
    try:
        return _empty(config, model)
    except Exception as error:
        raise UserError(
            f"{folder / 'config.json'}: transformers cannot build a causal language model of it: "
            f"{first_line(error)}"
        ) from error


def _of_checkpoint(model: Model, role: str) -> Size:
    from torch import nn

    folder = checkpoint(model, role)
    config = read_config(folder, trust_remote_code=model.trust_remote_code)
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    found = [int(getattr(config, name, None) or 0) for name in needed]
    if not all(found):
        raise _unknown(folder, "no known field for layers, hidden size, heads or vocabulary")
    _, width, heads, vocabulary = found
    try:
        empty = _empty(config, model)
    except Exception as error:  # the code of a model's own may raise anything
        reason = f"transformers cannot build the model without its weights: {first_line(error)}"
        raise _unknown(folder, reason) from error
    layers, head = empty.config.num_hidden_layers, empty.get_output_embeddings()
    embeddings = [m.weight for m in empty.modules() if isinstance(m, nn.Embedding) or m is head]
    outside = {id(weight) for weight in embeddings}
    body = sum(p.numel() for p in empty.parameters() if p.dim() > 1 and id(p) not in outside)
    queries = heads * head_dim(config)
    keys = (getattr(config, "num_key_value_heads", None) or heads) * head_dim(config)
    names = ("intermediate_size", "ffn_dim", "n_inner")
    mlp = next((n for name in names if (n := getattr(config, name, None))), 4 * width)
    return Size(
        layers=layers,
        width=width,
        queries=queries,
        keys=keys,
        mlp=mlp,
        gated=body / layers > width * (2 * (queries + keys) + 2.5 * mlp),
        vocabulary=vocabulary,
        body=body,
        parameters=sum(p.numel() for p in empty.parameters()),
        dtype=str(config.dtype or "").removeprefix("torch."),
    )


def _empty(config: Any, model: Model) -> Any:
    """The model of a configuration on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    from kdbench.models.model import keep_layers

    build: Any = AutoModelForCausalLM.from_config
    if model.trust_remote_code:
        forget_classes()
    with torch.device("meta"):
        empty = build(config, trust_remote_code=model.trust_remote_code)
    if model.keep_layers:
        keep_layers(empty, model.keep_layers)
    return empty


def _unknown(folder: Path, reason: str) -> UserError:
    return UserError(
        f"{folder / 'config.json'}: cannot estimate memory: {reason}; only `kdbench plan` is "
        "affected"
    )
