"""Models as the loop sees them: a body that gives hidden states, and a head that gives logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive
from kdbench.config.schema import Architecture, Lora
from kdbench.models.remote_code import forget_classes

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Head:
    """What turns final hidden states into logits: softcap(scale * (h W^T + b)).

    Attributes:
        weight: [V, D], cut to the tokenizer's true size.
        bias: [V] or None.
        scale: factor on the logits (Cohere's logit_scale, the inverse of Granite's scaling).
        softcap: c in c tanh(logits / c) (Gemma 2), or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, D] -> [N, V], float32 or wider, whatever the model runs in."""
        return self.finish(hidden @ self.weight.T, self.bias)

    def finish(self, product: Tensor, bias: Tensor | None) -> Tensor:
        """What follows the matrix product h W^T, [N, V], elementwise; `bias` may be a leaf."""
        logits = product.to(torch.promote_types(product.dtype, torch.float32))
        if bias is not None:
            logits = logits + bias
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def parameters(self) -> list[Tensor]:
        """The tensors that gradients are for."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


POSITIONS = 2048
"""Of a model that is built."""


def build(architecture: Architecture, vocabulary: int, eos: int, *, seed_key: str) -> Any:
    """A Llama with random weights that are a function of `seed_key` alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=architecture.width,
        intermediate_size=architecture.mlp,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=architecture.tied,
        initializer_range=architecture.init_std,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("init", seed_key))
        return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def load(
    folder: Path,
    device: torch.device,
    *,
    own_dtype: bool = False,
    dtype: str = "",
    trust_remote_code: bool = False,
) -> Any:
    """A causal language model from a folder, in float32 or, on a GPU, in its own dtype.

    Raises:
        UserError: the folder holds no model that transformers can load from safetensors.
    """
    kept = (dtype or "auto") if own_dtype and device.type != "cpu" else torch.float32
    return read(folder, kept, trust_remote_code=trust_remote_code).to(device)


def read(
    folder: Path,
    dtype: torch.dtype | str,
    *,
    pickle: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A causal language model from a folder, as transformers reads it.

    Raises:
        UserError: the folder holds no model that transformers can load.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if trust_remote_code:
        forget_classes()
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=not pickle,
            trust_remote_code=trust_remote_code,
        )
    except (ImportError, OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder}: cannot be loaded as a causal language model: {error}"
        ) from error


def save(model: Any, folder: Path) -> None:
    """Saves a model as one `model.safetensors`, however large: what reads it knows no shards."""
    model.save_pretrained(folder, max_shard_size="1000TB")


def layer_list(model: Any) -> tuple[Any, str]:
    """The module that holds a model's decoder layers, and under which name.

    Raises:
        UserError: the layers cannot be told from other modules.
    """
    count = model.config.num_hidden_layers
    lists = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(lists) != 1:
        raise UserError(
            f"keep_layers: {type(model).__name__} has {len(lists)} lists of {count} modules, and "
            "one is needed: that of its decoder layers"
        )
    return lists[0]


def keep_layers(model: Any, layers: Sequence[int]) -> None:
    """Leaves only these decoder layers in a model, in place; to generate, save and load it first.

    Raises:
        UserError: the layers cannot be told from other modules.
    """
    parent, name = layer_list(model)
    setattr(parent, name, nn.ModuleList(getattr(parent, name)[layer] for layer in layers))
    model.config.num_hidden_layers = len(layers)
    if (types := getattr(model.config, "layer_types", None)) is not None:
        model.config.layer_types = [types[layer] for layer in layers]


def adapt(model: Any, lora: Lora, *, seed_key: str) -> Any:
    """Puts adapters into a model's layers, in place; only they are trained from here on.

    Returns:
        peft's view of the model, whose `merge_and_unload` gives plain weights back.

    Raises:
        UserError: peft is not installed, does not know which layers to adapt, or would adapt the
            output head or a layer whose weights another one shares.
    """
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'kdbench[lora]'") from error
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or None,
    )
    users: dict[Tensor, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        users.setdefault(weight, []).append(name.rpartition(".")[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("lora", seed_key))
        try:
            adapters = get_peft_model(model, config)
        except ValueError as error:
            raise UserError(f"lora.targets: {error}") from error
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base: Any = getattr(layer.get_base_layer(), "weight", None)
        shared = [user for user in users.get(base, []) if user != name]
        if shared:
            raise UserError(
                f"lora.targets: {name} shares its weights with {', '.join(shared)} in this model, "
                "and what an adapter learns of one layer cannot be saved in weights that both read;"
                " leave it out"
            )
        if layer is model.get_output_embeddings():
            raise UserError(f"lora.targets: {name}, the output head, cannot be adapted here")
    return adapters


def hidden_states(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """The body's final hidden states at flat positions of right-padded sequences.

    Args:
        model: a causal language model; padding on the right cannot reach what stands before it.
        tokens: [rows, length].
        positions: [N], indices into rows * length.

    Returns:
        [N, D].
    """
    with _unpacked():
        states: Tensor = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[positions]


@contextmanager
def _unpacked() -> Iterator[None]:
    """Spares transformers its search for several sequences in one row, which kdbench never has.

    It asks the device for a number in every forward pass, and a GPU would stand still for that.
    """
    from transformers import masking_utils

    search = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = search


@contextmanager
def training_mode(model: Any, *, dropout: bool) -> Iterator[None]:
    """For forward and backward passes of a training step.

    Without dropout a model computes what it does in evaluation mode. transformers then computes no
    layer anew in the backward pass, whatever was asked for: a layer is told to train up to its own
    forward pass.
    """
    model.train(dropout)
    handles = []
    for layer in () if dropout else model.modules():
        if getattr(layer, "gradient_checkpointing", False):
            handles.append(layer.register_forward_pre_hook(_evaluate))
            handles.append(layer.register_forward_hook(_pretend_to_train))
            layer.training = True
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.train(dropout)


def _evaluate(layer: nn.Module, arguments: object) -> None:
    layer.training = False  # of this module alone


def _pretend_to_train(layer: nn.Module, arguments: object, output: object) -> None:
    layer.training = True


def head_of(model: Any, vocabulary: int) -> Head:
    """The head of a model, cut to the first `vocabulary` ids.

    Padded heads (151,936 against 152,064) hold ids that do not exist: they are cut, so that both
    distributions are normalised over the same ids.

    Raises:
        UserError: the head is smaller than the vocabulary, or does something not known here.
    """
    output = model.get_output_embeddings()
    config = model.config
    if not isinstance(output, nn.Linear):
        raise UserError(f"{type(model).__name__}: its output head is no plain linear layer")
    if output.weight.shape[0] < vocabulary:
        raise UserError(
            f"{type(model).__name__} has {output.weight.shape[0]} output ids, the tokenizer "
            f"{vocabulary}: they do not belong together"
        )
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    bias = None if output.bias is None else output.bias[:vocabulary]
    return Head(output.weight[:vocabulary], bias, scale, softcap)


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 for a body's matrix products on a GPU; nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def pick_device() -> torch.device:
    """The first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
