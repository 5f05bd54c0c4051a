"""How much memory and how many operations a suite's training takes, before any model is here.

Sizes come from a checkpoint's config.json where it is here, and from the suite otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.schema import Model, Shape, Suite
from kdbench.head.chunked import BLOCK_ELEMENTS, CHUNK_ELEMENTS
from kdbench.models.weights import at_hand, checkpoint
from kdbench.pipeline.formulas import Transformer

OBJECTIVE_BUFFERS = 8
"""Buffers of one block of logits that an objective and its gradient keep: five to twelve."""


@dataclass(frozen=True)
class Sizes:
    """A model's parameters, counted.

    Attributes:
        body: what `kdbench.pipeline.formulas` knows of it.
        parameters: all of them.
        lora: those of its adapters; 0 where it is trained in full.
    """

    body: Transformer
    parameters: int
    lora: int

    @property
    def trained(self) -> int:
        """Parameters that have a gradient and AdamW's two moments."""
        return self.lora or self.parameters


def on_paper(
    suite: Suite,
    *,
    rows: int,
    length: int,
    gpu: bool,
    mean_length: float | None = None,
    mean_response: float | None = None,
) -> dict[str, Any]:
    """Bytes of each part of a training, and operations of one trial.

    Args:
        suite: its models are here, or say their `shape`.
        rows: of a micro-batch.
        length: tokens of the longest row, to which a micro-batch is padded.
        gpu: bodies run in bfloat16 there, and the objective takes a whole chunk at a time.
        mean_length: tokens of a row on average; `length` where it is not known.
        mean_response: of them those of the response, which alone the heads see; as above.

    Returns:
        Bytes: `weights`, `optimizer` (gradients and moments), `activations` (of one micro-batch),
        `teacher_head` and `chunk`, all at one time in a training process, and `total` of them;
        `teacher_body`, on top of them for on-policy objectives and while the cache is filled;
        `teacher_fit`, all that its supervised training takes before, 0 where it has none;
        `cached_token`, of the teacher's cache; `checkpoint`, on disk; and `flops` of a trial with
        a cached teacher.
    """
    teacher, student = sizes(suite.teacher, suite), sizes(suite.student, suite)
    parts = _training(suite.student, student, min(rows, suite.recipe.batch) * length, gpu=gpu)
    parts["teacher_head"] = teacher.body.head * _teacher_bytes(suite.teacher, gpu=gpu)
    fit = {}
    if suite.teacher.fit is not None:
        fit = _training(
            suite.teacher, teacher, min(rows, suite.teacher.fit.batch) * length, gpu=gpu
        )
    tokens, responses = mean_length or length, mean_response or length
    # Forward and twice that backward; with checkpointing the forward pass runs again.
    passes = 4 if suite.student.gradient_checkpointing else 3
    body = passes * student.body.forward(tokens / 2)
    head = 6 * student.body.head + 2 * teacher.body.head
    row = tokens * body + responses * head
    return {
        **parts,
        "total": sum(parts.values()),
        "teacher_body": teacher.parameters * _teacher_bytes(suite.teacher, gpu=gpu),
        "cached_token": teacher.body.width * _teacher_bytes(suite.teacher, gpu=gpu),
        "teacher_fit": sum(fit.values()),
        "checkpoint": 12 * student.trained,
        "flops": suite.recipe.steps * suite.recipe.batch * row,
    }


def _training(model: Model, size: Sizes, tokens: int, *, gpu: bool) -> dict[str, float]:
    """Bytes of what is trained, while it sees so many tokens, padding included, at a time."""
    width = _activation_numbers(size.body) * (2 if gpu else 4)
    layers, vocabulary = size.body.layers, size.body.vocabulary
    if model.gradient_checkpointing:
        activations = tokens * (layers * size.body.width * 4 + width)
    else:
        activations = tokens * layers * width
    logits = 4 * min(CHUNK_ELEMENTS, tokens * vocabulary)
    block = logits if gpu else 4 * min(BLOCK_ELEMENTS, tokens * vocabulary)
    return {
        # Beside float32 weights, autocast keeps those that it has cast.
        "weights": size.parameters * (6 if gpu else 4),
        "optimizer": size.trained * 12,
        "activations": activations,
        # Logits of both models, the blocks of the objective, and, on the way to the weight's
        # gradient, the head's twice and that of the embeddings.
        "chunk": 2 * logits + OBJECTIVE_BUFFERS * block + 3 * 4 * size.body.head,
    }


def sizes(model: Model, suite: Suite) -> Sizes:
    """Counts a model's parameters from its architecture, its config.json, or its `shape`."""
    shape = _shape(model, suite)
    kv = shape.kv_heads or shape.heads
    head_dim = shape.head_dim or shape.width // shape.heads
    body = Transformer(
        name=model.given,
        layers=shape.layers,
        width=shape.width,
        mlp=shape.mlp,
        matrices=3 if shape.gate else 2,
        kv_width=kv * head_dim,
        vocabulary=shape.vocabulary,
        query_width=shape.heads * head_dim,
    )
    heads = 1 if shape.tied else 2
    norms = (2 * shape.layers + 1) * shape.width
    parameters = body.body + heads * body.head + shape.positions * shape.width + norms
    lora = 0
    if model.lora is not None:
        # Queries and values, which peft adapts where no targets are named.
        matrices = len(model.lora.targets) or 2
        lora = shape.layers * matrices * model.lora.rank * 2 * shape.width
    return Sizes(body, parameters, lora)


def _shape(model: Model, suite: Suite) -> Shape:
    if model.architecture is not None:
        given = model.architecture
        return Shape(
            layers=given.layers,
            width=given.width,
            mlp=given.mlp,
            heads=given.heads,
            vocabulary=suite.tokenizer.vocabulary or 50_257,
            tied=given.tied,
        )
    if model.path or model.shape is None:
        role = "teacher" if model is suite.teacher else "student"
        shape = shape_of(checkpoint(model, role))
        kept = len(model.keep_layers) or shape.layers
        return shape.model_copy(update={"layers": kept})
    return model.shape


def shape_of(folder: Path) -> Shape:
    """The shape that a checkpoint's config.json describes.

    Raises:
        UserError: it does not say so under any name that is known here.
    """
    config = store.read_json(folder / "config.json")

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    width, vocabulary = first("hidden_size", "n_embd"), first("vocab_size")
    layers = first("num_hidden_layers", "n_layer")
    heads = first("num_attention_heads", "n_head")
    if None in (layers, width, heads, vocabulary):
        raise UserError(
            f"{folder / 'config.json'}: kdbench finds no layers, width, heads or vocabulary under "
            "the names it knows, so it cannot reckon what the model takes; `kdbench run` does not "
            "need that"
        )
    learned = config.get("model_type") in ("gpt2", "opt")
    return Shape(
        layers=layers,
        width=width,
        mlp=first("intermediate_size", "ffn_dim", "n_inner") or 4 * width,
        heads=heads,
        kv_heads=first("num_key_value_heads"),
        head_dim=first("head_dim"),
        gate=not learned,
        vocabulary=vocabulary,
        positions=first("max_position_embeddings", "n_positions") if learned else 0,
        tied=bool(config.get("tie_word_embeddings", learned)),
    )


def _activation_numbers(body: Transformer) -> int:
    """What autograd keeps of a layer and token, read off transformers' Llama and GPT-2.

    Llama: the inputs of both norms, what they return before and after their weight, queries, keys,
    values, the attention's result and its copy; of the MLP both halves, their product and the
    activation. GPT-2's `gelu_new` keeps five intermediate results in the place of the gate.
    """
    if body.matrices == 3:
        return 6 * body.width + 3 * body.attention + 2 * body.kv_width + 4 * body.mlp
    return 9 * body.width + 6 * body.mlp


def _teacher_bytes(model: Model, *, gpu: bool) -> int:
    """Of a weight; what is fitted here is float32, and what is not here yet is taken to be."""
    if not gpu:
        return 4
    dtype: str = model.dtype
    if not (dtype or model.fit or model.architecture) and at_hand(model):
        config = store.read_json(checkpoint(model, "teacher") / "config.json")
        dtype = config.get("dtype") or config.get("torch_dtype") or ""
    return 2 if dtype in ("bfloat16", "float16") else 4
