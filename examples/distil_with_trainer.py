"""Any objective of kdbench in transformers' Trainer: in seconds, offline, with tiny models.

    pip install kdbench accelerate
    python examples/distil_with_trainer.py "amid[alpha=-3]"

`DistillationTrainer` is what to copy; the rest makes a model, a tokenizer and data to show it with.
"""

import sys
import tempfile
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from kdbench.losses import Hidden, distillation_loss

NUMBERS = [str(number) for number in range(13)]


class DistillationTrainer(Trainer):
    """A Trainer whose loss compares the student with a teacher of the same tokenizer.

    Args:
        teacher: a causal language model; it is not trained.
        objective: what `kdbench objectives` lists, for example `amid[alpha=-3]`.
        vocabulary: the tokenizer's size, to which both models' heads are cut.
    """

    def __init__(
        self, *args: Any, teacher: Any, objective: str, vocabulary: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self.objective, self.vocabulary = objective, vocabulary
        # Then the Trainer counts the labels of the whole global batch, and does not divide again.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The objective per response token, from hidden states: no [B, T, V] logits are formed."""
        labels = inputs["labels"]
        tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        # Through the (perhaps wrapped) model's own forward, so that ranks exchange gradients.
        output = model(**tokens, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        with torch.no_grad():
            states = self.teacher.base_model(**tokens, use_cache=False).last_hidden_state
        loss = distillation_loss(
            self.objective,
            Hidden.of(self.accelerator.unwrap_model(model), output.hidden_states[-1]),
            Hidden.of(self.teacher, states),
            labels,
            vocabulary=self.vocabulary,
            num_items_in_batch=num_items_in_batch,
        )
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is of all ranks, and their gradients are averaged, not added.
            loss = loss * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss


def make_trainer(objective: str, folder: str, **arguments: Any) -> DistillationTrainer:
    """A student that starts from random weights and learns from a random teacher.

    Args:
        objective: see `DistillationTrainer`.
        folder: where the Trainer may write.
        **arguments: of `TrainingArguments`.
    """
    tokenizer = make_tokenizer()
    return DistillationTrainer(
        make_model(len(tokenizer), width=32, seed=1),
        TrainingArguments(
            folder, use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no",
            disable_tqdm=True, **arguments,
        ),
        train_dataset=make_data(tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        # Heads are often padded: this teacher's has five ids that the tokenizer does not have.
        teacher=make_model(len(tokenizer) + 5, width=64, seed=2),
        objective=objective,
        vocabulary=len(tokenizer),
    )  # fmt: skip


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = ["<pad>", "<eos>", "plus", "is", "because", "and", "make", *NUMBERS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="right"
    )


def make_data(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Sums; every second answer explains itself. Labels: the answer and the end, nothing else."""
    rows = []
    for first in range(7):
        for second in range(7 - first % 2):
            prompt = f"{NUMBERS[first]} plus {NUMBERS[second]} is"
            answer = NUMBERS[first + second]
            if (first + second) % 2:
                answer += f" because {NUMBERS[first]} and {NUMBERS[second]} make {answer}"
            start = tokenizer(prompt).input_ids
            end = [*tokenizer(answer).input_ids, tokenizer.eos_token_id]
            rows.append({"input_ids": start + end, "labels": [-100] * len(start) + end})
    return rows


def make_model(vocabulary: int, *, width: int, seed: int) -> Any:
    """A Llama with random weights, wide enough apart to have opinions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2,
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def main(objective: str = "amid[alpha=-3]", steps: int = 60) -> list[float]:
    """Trains, says how the loss went, and returns it: one value for each ten steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            objective, folder, max_steps=steps, logging_steps=10, learning_rate=1e-2,
            per_device_train_batch_size=4, gradient_accumulation_steps=2,
        )  # fmt: skip
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    print(f"{objective}: from {losses[0]:.4f} to {losses[-1]:.4f} in {steps} steps")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:2])
