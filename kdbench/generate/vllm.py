"""The vLLM backend: float32 on a CPU; on a GPU vLLM's own defaults, but for its share of memory.

It belongs in a child process: loaded in-process, vLLM makes `torch.set_num_threads` a no-op and
sets `LD_PRELOAD` for the processes started afterwards.
"""

import gc
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.generate import Answer, check_head_dim
from kdbench.generate.student import Student, answer_room, read_student
from kdbench.models.remote_code import forget_classes

MAX_SEQUENCES = 128
"""Sequences decoded at a time on a CPU; 256 are 10 % faster and take twice the cache."""
KV_BUDGET = 512 << 20
"""Bytes of KV cache on a CPU at most; a larger model decodes fewer sequences at a time."""
KV_BLOCK = 128
"""Tokens of one block of the KV cache, vLLM's default on a CPU."""

EMBEDDINGS = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}
"""Input embeddings of the model types whose weights are swapped in a running engine.

Only these are tested to give the answers of a fresh engine; every other type gets one."""
HEAD = "lm_head.weight"

GPU_MEMORY = "KDBENCH_GPU_MEMORY"
"""Environment variable: the share of a GPU's memory that an engine may have, above 0 to 1."""
NGRAM_SIZE = "no_repeat_ngram_size"
"""The key in `SamplingParams.extra_args` that `NGRAM_PROCESSOR` reads."""
NGRAM_PROCESSOR = "kdbench.generate.vllm_ngrams:NoRepeatNGrams"


class VllmGenerator:
    """See `kdbench.generate.Generator`."""

    def __init__(self, max_length: int, no_repeat_ngram_size: int) -> None:
        _import_vllm()
        self._max_length = max_length
        self._ngram_size = no_repeat_ngram_size
        self._options = _gpu_options() | (_ngram_options() if no_repeat_ngram_size else {})
        self.engine: Any = None
        self._student: Student | None = None

    def load(self, model_dir: Path, *, trust_remote_code: bool = False) -> None:
        student = read_student(model_dir, self._max_length, trust_remote_code=trust_remote_code)
        if self._student is not None and _swappable(self._student, student):
            _swap_weights(self.engine, student)
        else:
            self.close()
            self.engine = _engine(student, self._max_length, self._options)
        self._student = student

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[Answer]:
        from vllm import SamplingParams

        if self._student is None:
            raise RuntimeError("load a student before generating")
        room = answer_room(prompts, max_new_tokens, self._max_length)
        known = self._student.vocabulary
        padded = known < self._student.config.vocab_size
        # One list for all: 150,000 ids a request would fill the memory, and so would copies of it.
        allowed = list(range(known)) if padded else None
        params = [
            SamplingParams(
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_tokens=tokens,
                stop_token_ids=sorted(self._student.eos_ids),
                allowed_token_ids=allowed,
                detokenize=False,
                extra_args={NGRAM_SIZE: self._ngram_size} if self._ngram_size else None,
                skip_clone=True,
            )
            for tokens, seed in zip(room, seeds, strict=True)
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.engine.generate(requests, params, use_tqdm=False)
        return [self._student.answer(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        self.engine = None
        self._student = None
        _free_gpu()


def _import_vllm() -> None:
    """Imports vLLM, which reads these settings once."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="ERROR",
    )
    logging.getLogger("vllm").setLevel(logging.ERROR)
    import torch

    if not torch.cuda.is_available():
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"vLLM cannot be imported ({error}); install the extra `cpu` or `gpu`, "
            "or use --backend transformers"
        ) from error


def _engine(student: Student, max_length: int, options: dict[str, Any]) -> Any:
    import torch
    from vllm import LLM

    if not torch.cuda.is_available():
        check_head_dim(student.head_dim)
        if not student.own_code:
            _register_in_process(student)
        options = options | _cpu_options(student, max_length)
    if student.own_code:  # where vLLM knows a class of the same name, it would take that
        forget_classes()
        options = options | {"model_impl": "transformers"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return LLM(
            str(student.path),
            max_model_len=max_length,
            skip_tokenizer_init=True,
            enable_prefix_caching=False,
            generation_config="vllm",
            use_tqdm_on_load=False,
            trust_remote_code=student.own_code,
            **options,
        )


def _register_in_process(student: Student) -> None:
    """Spares the second process in which vLLM would inspect the class first (10 s and more)."""
    from vllm import ModelRegistry

    for name in student.config.architectures or ():
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


def _cpu_options(student: Student, max_length: int) -> dict[str, Any]:
    """An eager engine whose cache holds exactly the sequences it decodes at a time.

    So no sequence is preempted. Chunked prefill would break seeded requests on a CPU.
    """
    config = student.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    block_bytes = 2 * 4 * config.num_hidden_layers * heads * student.head_dim * KV_BLOCK
    blocks = -(-max_length // KV_BLOCK)
    sequences = max(1, min(MAX_SEQUENCES, KV_BUDGET // (blocks * block_bytes)))
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_seqs": sequences,
        "block_size": KV_BLOCK,
        # One block more, since vLLM keeps one for itself.
        "kv_cache_memory_bytes": (sequences * blocks + 1) * block_bytes,
    }


def _gpu_options() -> dict[str, Any]:
    """Asked once a process: an engine that was closed may still hold memory."""
    import torch

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": gpu_share(os.environ.get(GPU_MEMORY, ""), free, total)}


def gpu_share(asked: str, free: int, total: int) -> float:
    """The share of a card's memory for an engine beside the process that trains.

    Half of what is free, where vLLM would take nine tenths of the card: the engine stays while the
    next student is trained. `asked` is KDBENCH_GPU_MEMORY, empty where it is not set; sizes are in
    bytes. *Untested on a GPU.*

    Raises:
        UserError: `asked` is not a number above 0 and up to 1.
    """
    if not asked:
        return free / total / 2
    try:
        share = float(asked)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(
            f"{GPU_MEMORY}={asked}: give the share of the GPU's memory that vLLM may have, "
            "above 0 and up to 1, or unset it for half of what is free"
        )
    return share


def _free_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _ngram_options() -> dict[str, Any]:
    """An engine that bans repeated n-grams.

    On a GPU it has to be vLLM's V1 model runner, whose interface the processor has, and no step may
    be scheduled before the last one's token is known. On a CPU both are so anyway.
    """
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    return {"logits_processors": [NGRAM_PROCESSOR], "async_scheduling": False}


def _swappable(old: Student, new: Student) -> bool:
    import torch

    return (
        not torch.cuda.is_available()
        and not (new.own_code or old.own_code)
        and new.config.model_type in EMBEDDINGS
        and new.config_text == old.config_text
        and new.tensors == old.tensors
    )


def _swap_weights(engine: Any, student: Student) -> None:
    """Loads the weights into the running engine: 20 ms, where a fresh one takes 1.4 s.

    A tied output head is given by name: on a CPU it is a packed copy of the embeddings, which
    vLLM's `reload_weights` leaves at the old student's values otherwise.
    """
    from safetensors.torch import load_file

    tensors = load_file(student.path / "model.safetensors")
    tensors.setdefault(HEAD, tensors[EMBEDDINGS[student.config.model_type]])
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})
