"""`no_repeat_ngram_size` in vLLM, whose sampling parameters have no such field.

A logits processor of vLLM's V1 interface, which the engine loads by its name; its batch is not that
of `generate`: requests come, move and end between any two steps.
"""

from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from kdbench.generate.ngrams import NGrams, ban
from kdbench.generate.vllm import NGRAM_SIZE


class NoRepeatNGrams(LogitsProcessor):
    """Bans the tokens that would repeat an n-gram of a request's prompt and answer.

    Requests whose `SamplingParams.extra_args` do not give the size are left alone.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self._requests: dict[int, _Request] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._requests, batch_update, _request)

    def apply(self, logits: Tensor) -> Tensor:
        ban(logits, {row: request.ngrams() for row, request in self._requests.items()})
        return logits


class _Request:
    def __init__(self, size: int, prompt: list[int], answer: list[int]) -> None:
        self._ngrams = NGrams(size, prompt)
        self._answer = answer  # vLLM's own list, which grows by a token a step
        self._seen = 0

    def ngrams(self) -> NGrams:
        self._ngrams.extend(self._answer[self._seen :])
        self._seen = len(self._answer)
        return self._ngrams


def _request(
    params: SamplingParams, prompt: list[int] | None, answer: list[int]
) -> _Request | None:
    size = (params.extra_args or {}).get(NGRAM_SIZE)
    return _Request(size, prompt or [], answer) if size else None
