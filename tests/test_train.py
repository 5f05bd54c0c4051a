"""The loop: its gradient, its independence of how it is split, resumption, and divergence."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, masking_utils

from kdbench.api import divergence
from kdbench.base.errors import UserError
from kdbench.config.schema import Lora
from kdbench.data.batches import batch_rows, collate
from kdbench.data.encode import Encoded
from kdbench.models.model import hidden_states, load
from kdbench.pipeline.artifacts import Artifacts
from kdbench.train import loop
from kdbench.train.job import Job
from kdbench.train.loop import learning_rate, train
from kdbench.train.sequences import open_sequences
from kdbench.train.state import initial_state, load_checkpoint
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import parse
from tests.training_tools import CPU, assert_same_training, log, make_job, train_until, weights


def test_four_micro_batches_train_like_one(artifacts: Artifacts, tmp_path: Path) -> None:
    one = make_job(artifacts, tmp_path / "one")
    four = make_job(artifacts, tmp_path / "four", micro_batch=4)
    train(one)
    train(four)
    assert_same_training(one, four, exactly=False)


def test_first_gradient_is_the_token_sum_over_the_global_count(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = make_job(artifacts, tmp_path, micro_batch=3)
    train(job)
    data = Encoded.load(job.train)
    rows = batch_rows(len(data), job.recipe.batch, 0, suite=job.seed_key, seed=0)
    student = job.initial.load(CPU)
    own = load(artifacts.model("teacher") / "model", CPU)
    total, tokens = torch.zeros(()), 0
    for row in rows.tolist():
        ids = data.tokens[data.starts[row] : data.starts[row + 1]][None]
        prompt = int(data.prompt_lengths[row])
        q = student(input_ids=ids).logits[0, prompt - 1 : -1].log_softmax(-1)
        p = own(input_ids=ids).logits[0, prompt - 1 : -1].log_softmax(-1).detach()
        total = total + (p.exp() * (p - q)).sum()
        tokens += len(q)
    (total / tokens).backward()
    total = total.detach()
    norm = torch.nn.utils.get_total_norm([x.grad for x in student.parameters()])
    first = log(job)[0]
    assert first["tokens"] == tokens
    assert first["loss"] == pytest.approx(float(total / tokens), rel=1e-4)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-3)


def test_hidden_states_are_those_of_transformers_own_masks(artifacts: Artifacts) -> None:
    student = load(artifacts.model("student") / "model", CPU)
    batch = collate(Encoded.load(artifacts.encoded / "train.safetensors"), torch.arange(5))
    search = masking_utils.find_packed_sequence_indices
    found = hidden_states(student, batch.tokens, batch.positions)
    assert masking_utils.find_packed_sequence_indices is search
    wanted = student.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state
    assert torch.equal(found, wanted.flatten(0, 1)[batch.positions])


@pytest.mark.parametrize("stop_after", [1, 4, 6, 11])
def test_killed_training_goes_on_to_the_same_weights(
    artifacts: Artifacts, tmp_path: Path, stop_after: int
) -> None:
    whole = make_job(artifacts, tmp_path / "whole")
    train(whole)
    killed = make_job(artifacts, tmp_path / "killed")
    train_until(killed, stop_after)
    with (killed.out / "train.jsonl").open("a") as file:
        file.write('{"step": 99, "torn')
    train(killed)
    assert [row["step"] for row in log(killed)] == list(range(1, 13))
    assert_same_training(whole, killed, exactly=True)


def flip(content: bytes) -> bytes:
    place = len(content) - 40
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("checkpoint.safetensors", flip, "its bytes are not those that were written"),
        ("checkpoint.safetensors", lambda content: content.replace(b'"8"', b'"4"'), "damaged"),
        ("checkpoint.safetensors", lambda content: content[:50], "damaged"),
        ("train.jsonl", lambda _: b"", "lacks steps of the 8 in the checkpoint"),
        ("train.jsonl", lambda content: content.replace(b'"step":5,', b'"step":6,'), "lacks steps"),
        ("train.jsonl", lambda content: b"[]\n" + content, "not a JSON object"),
    ],
)
def test_a_checkpoint_without_its_log_is_named_and_training_begins_anew(
    artifacts: Artifacts,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    message: str,
) -> None:
    whole, killed = (make_job(artifacts, tmp_path / name) for name in ("whole", "killed"))
    train(whole)
    train_until(killed, 8)
    path = killed.out / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{message}.*the same command trains from the beginning"):
        train(killed)
    train(killed)
    assert_same_training(whole, killed, exactly=True)


def test_killed_training_of_adapters_goes_on_to_the_same_plain_weights(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """With dropout, whose random numbers are those of the step."""
    pytest.importorskip("peft")
    changes = {"lora": Lora(rank=2, alpha=4, dropout=0.3), "gradient_checkpointing": True}
    whole, killed = (make_job(artifacts, tmp_path / name, **changes) for name in ("one", "two"))
    train(whole)
    train_until(killed, 8)
    train(killed)
    assert_same_training(whole, killed, exactly=True)
    before = whole.initial.load(CPU).state_dict()
    after = load(whole.out / "model", CPU).state_dict()
    changed = {name.split(".")[-2] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"q_proj", "v_proj"}


def test_weights_that_are_not_saved_as_they_were_trained_are_an_error(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(artifacts, tmp_path / "job")
    save = LlamaForCausalLM.save_pretrained

    def lossy(self: LlamaForCausalLM, folder: Path, **options: Any) -> None:
        state = self.state_dict()
        name = "model.norm.weight"
        state[name] = state[name] * 1.001
        save(self, folder, state_dict=state, **options)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", lossy)
    with pytest.raises(UserError, match=r"the weights as saved: dev_nll on 4 rows of dev is \d"):
        train(job)
    assert not (job.out / "model").exists()
    assert not (job.out / "trained.json").exists()
    monkeypatch.undo()
    train(job)
    assert (job.out / "trained.json").exists()


def test_adapters_that_merge_into_another_model_are_an_error(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    merge = peft.LoraModel.merge_and_unload

    def lossy(self: Any) -> Any:
        merged = merge(self)
        with torch.no_grad():
            merged.model.norm.weight.mul_(1.1)
        return merged

    monkeypatch.setattr(peft.LoraModel, "merge_and_unload", lossy)
    job = make_job(artifacts, tmp_path / "job", lora=Lora(rank=2, alpha=4))
    with pytest.raises(UserError, match=r"the merged adapters: dev_nll on 4 rows of dev is \d"):
        train(job)
    assert not (job.out / "model").exists()


def test_all_objectives_see_the_same_batches(artifacts: Artifacts, tmp_path: Path) -> None:
    tokens = []
    for name in ("sft", "reverse-kl", "amid"):
        job = make_job(artifacts, tmp_path / name, variant=parse(name))
        train(job)
        tokens.append([row["tokens"] for row in log(job)])
    assert tokens[0] == tokens[1] == tokens[2]


def test_seed_changes_the_order_and_nothing_of_the_start(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    jobs = [make_job(artifacts, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for job in jobs:
        train(job)
    assert [row["loss"] for row in log(jobs[0])] != [row["loss"] for row in log(jobs[1])]


def test_log_holds_the_common_diagnostics(artifacts: Artifacts, tmp_path: Path) -> None:
    job = make_job(artifacts, tmp_path)
    train(job)
    measured = [row for row in log(job) if "dev_nll" in row]
    assert [row["step"] for row in measured] == [1, 4, 8, 12]
    last = measured[-1]
    assert last["dev_loss"] == pytest.approx(last["forward_kl"], rel=1e-5)
    assert 0 < last["tvd"] < 1
    assert last["student_entropy"] > 0
    assert last["reverse_kl"] > 0


def test_sft_logs_its_distance_to_the_teacher_and_trains_without_it(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = make_job(artifacts, tmp_path, variant=parse("sft"))
    train(job)
    last = log(job)[-1]
    assert last["forward_kl"] > 0
    assert last["dev_loss"] == pytest.approx(last["dev_nll"], rel=1e-5)


def test_training_lowers_the_objective(artifacts: Artifacts, tmp_path: Path) -> None:
    job = make_job(artifacts, tmp_path)
    train(job)
    losses = [row["loss"] for row in log(job)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


Spoil = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def spoilt(name: str, call: int, spoil: Spoil) -> Iterator[str]:
    """Forward KL under another name, that `spoil(value, student_logp)` changes from a call on."""
    calls = 0

    def objective(teacher_logp: torch.Tensor, student_logp: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        value = (teacher_logp.exp() * (teacher_logp - student_logp)).sum(-1)
        return spoil(value, student_logp) if calls >= call else value

    with OBJECTIVES.restored():
        divergence(name, source="this test")(objective)
        yield name


@pytest.fixture
def exploding() -> Iterator[str]:
    """An objective whose value is NaN from its eighth call on."""
    with spoilt("exploding", 8, lambda value, _: value * float("nan")) as name:
        yield name


def test_a_nan_loss_ends_the_trial_and_keeps_its_last_checkpoint(
    artifacts: Artifacts, tmp_path: Path, exploding: str
) -> None:
    job = make_job(artifacts, tmp_path / "diverged", variant=parse(exploding))
    train(job)
    trained = json.loads((job.out / "trained.json").read_text())
    assert trained["diverged_at"] == 6  # five steps and two measurements on dev were finite
    assert "nan" in trained["reason"]
    assert all(torch.isfinite(value).all() for value in weights(job).values())
    until_checkpoint = make_job(artifacts, tmp_path / "checkpoint")
    train_until(until_checkpoint, 4)
    model = until_checkpoint.initial.load(CPU)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    load_checkpoint(until_checkpoint.out / "checkpoint.safetensors", model, optimizer)
    for name, value in model.named_parameters():
        torch.testing.assert_close(weights(job)[name], value, rtol=0, atol=0)


@pytest.fixture
def read_late(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the loop read a step's figures while the next one runs, as it does on a GPU."""
    return lambda: monkeypatch.setattr(loop, "reads_late", lambda *_: True)


def without_seconds(job: Job) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log(job)]


def test_figures_that_are_read_late_change_neither_log_nor_weights(
    artifacts: Artifacts, tmp_path: Path, read_late: Callable[[], None]
) -> None:
    jobs = [make_job(artifacts, tmp_path / name) for name in ("at-once", "late")]
    train(jobs[0])
    read_late()
    train(jobs[1])
    assert_same_training(*jobs, exactly=True)
    assert without_seconds(jobs[0]) == without_seconds(jobs[1])


def test_training_killed_with_a_step_unread_goes_on_to_the_same_weights(
    artifacts: Artifacts, tmp_path: Path, read_late: Callable[[], None]
) -> None:
    whole, killed = (make_job(artifacts, tmp_path / name) for name in ("whole", "killed"))
    train(whole)
    read_late()
    train_until(killed, 6)
    train(killed)
    assert_same_training(whole, killed, exactly=True)


@pytest.mark.parametrize(
    ("variant", "late"),
    [("forward-kl", True), ("sft", True), ("taid", False), ("jsd@student", False)],
)
def test_on_a_gpu_only_what_the_next_step_depends_on_is_waited_for(
    artifacts: Artifacts, tmp_path: Path, variant: str, late: bool
) -> None:
    job = make_job(artifacts, tmp_path, variant=parse(variant))
    state = initial_state(job, CPU)
    sequences = open_sequences(job, state)
    assert loop.reads_late(state, sequences, torch.device("cuda")) == late
    assert not loop.reads_late(state, sequences, CPU)


@pytest.fixture
def steep() -> Iterator[str]:
    """An objective of finite values whose gradient is NaN from its ninth call on."""
    with spoilt("steep", 9, lambda value, logp: value + (0 * logp).sqrt().sum(-1)) as name:
        yield name


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_nan_gradient_ends_the_trial_at_its_step_and_leaves_the_weights_to_be_explained(
    artifacts: Artifacts, tmp_path: Path, steep: str, read_late: Callable[[], None], late: bool
) -> None:
    if late:
        read_late()
    job = make_job(artifacts, tmp_path, variant=parse(steep))
    train(job)
    trained = json.loads((job.out / "trained.json").read_text())
    assert trained["diverged_at"] == 7  # two of the nine calls were measurements on dev
    # The step before a checkpoint: what it holds must not be saved.
    assert [row["step"] for row in log(job)] == [1, 2, 3, 4, 5, 6]
    assert all(torch.isfinite(value).all() for value in weights(job).values())
    # Had the optimizer taken the step, the student's own logits would be to blame.
    assert trained["reason"].endswith("gradient norm nan: in the gradient")


def test_learning_rate_warms_up_and_ends_at_the_minimum(artifacts: Artifacts) -> None:
    recipe = artifacts.suite.recipe.model_copy(
        update={"steps": 100, "warmup": 10, "lr": 1.0, "min_lr": 0.1}
    )
    rates = [learning_rate(recipe, step) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))
