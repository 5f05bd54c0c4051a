"""Where training sequences come from: what each source trains on, and that it can be resumed."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.config.schema import Lora
from kdbench.data.batches import MicroBatch, batch_rows
from kdbench.data.encode import Encoded
from kdbench.data.tokenizer import end_id
from kdbench.head.chunked import label_logp
from kdbench.models.model import Head
from kdbench.pipeline.artifacts import Artifacts
from kdbench.train.batch import Sequences
from kdbench.train.job import Job, Weights
from kdbench.train.loop import train
from kdbench.train.policy import PolicyPortion
from kdbench.train.sequences import open_sequences
from kdbench.train.state import initial_state
from kdbench.variants.variant import parse
from tests.training_tools import CPU, assert_same_training, log, make_job, train_until, weights

NEVER_SAMPLES = "skew-reverse-kl@adaptive"
OFTEN_SAMPLES = "skew-reverse-kl@adaptive[threshold=0.8,tolerance=0,capacity=40]"


def job_of(artifacts: Artifacts, out: Path, expression: str, **changes: Any) -> Job:
    return make_job(artifacts, out, variant=parse(expression), **changes)


def source(job: Job) -> Sequences:
    """The source as the loop makes it, before the first step."""
    return open_sequences(job, initial_state(job, CPU))


def weighted_loss(job: Job, parts: list[tuple[Encoded, str, list[float] | None]]) -> float:
    """The sum over tokens by whole logits and the plain formula, weights given per row."""
    student = job.initial.load(CPU)
    assert job.live_teacher is not None
    teacher = job.live_teacher.load(CPU)
    total = 0.0
    for data, expression, row_weights in parts:
        for row in range(len(data)):
            ids = torch.tensor([data.prompt(row) + data.response(row)])
            first = len(data.prompt(row)) - 1
            with torch.no_grad():
                q, p = (
                    model(input_ids=ids).logits[0, first:-1].log_softmax(-1)
                    for model in (student, teacher)
                )
            values = parse(expression)(p, q, torch.tensor(data.response(row)))
            total += float(values.sum()) * (1.0 if row_weights is None else row_weights[row])
    return total


def test_samples_end_with_the_end_token_or_at_the_limit(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = job_of(artifacts, tmp_path, "imitkd", max_new_tokens=40)
    data = source(job).fresh(0)
    end = end_id(job.initial.folder)
    ended = 0
    for row in range(len(data)):
        response = data.response(row)
        assert end not in response[:-1]
        assert response[-1] == end or len(response) == 40
        ended += response[-1] == end
    assert ended > 0


def test_samples_answer_the_prompts_that_every_objective_sees_within_the_longest_sequence(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    gold = Encoded.load(artifacts.encoded / "train.safetensors")
    longest = int(gold.prompt_lengths.max()) + 3
    job = job_of(artifacts, tmp_path, "imitkd", max_length=longest)
    data = source(job).fresh(3)
    assert int(data.lengths.max()) <= longest
    rows = batch_rows(len(gold), 16, 3, suite=job.seed_key, seed=0).tolist()
    assert [data.prompt(i) for i in range(16)] == [gold.prompt(row) for row in rows]


@pytest.mark.parametrize("teacher_mix", [0.0, 0.5])
def test_first_tokens_follow_the_mixture_of_student_and_teacher(
    artifacts: Artifacts, tmp_path: Path, teacher_mix: float
) -> None:
    made = source(job_of(artifacts, tmp_path, "minillm", max_new_tokens=1))
    assert made.live is not None
    data = made.sample(torch.zeros(4000, dtype=torch.long), 0, teacher_mix=teacher_mix)
    tokens = torch.tensor([data.response(row)[0] for row in range(len(data))])
    prompt = torch.tensor([made.job.gold.prompt(0)])
    with torch.no_grad():
        p, q = (
            model(input_ids=prompt).logits[0, -1, : made.job.vocabulary].softmax(-1)
            for model in (made.live.model, made.student.model)
        )
    mixture = teacher_mix * p + (1 - teacher_mix) * q
    counts = torch.bincount(tokens, minlength=len(q)) / len(tokens)
    ids = (p - q).abs().topk(5).indices  # where the two differ most
    error = (mixture[ids] * (1 - mixture[ids]) / len(tokens)).sqrt()
    assert ((counts[ids] - mixture[ids]).abs() < 4.5 * error).all()
    other = p if teacher_mix == 0.0 else q
    assert ((other[ids] - mixture[ids]).abs() > 4.5 * error).any()


@pytest.mark.parametrize("name", ["imitkd", "on-policy-kd"])
def test_the_first_loss_is_the_divergence_on_the_students_samples(
    artifacts: Artifacts, tmp_path: Path, name: str
) -> None:
    job = job_of(artifacts, tmp_path, name, micro_batch=5)
    data = source(job).fresh(0)
    train(job)
    first = log(job)[0]
    tokens = int(data.response_lengths.sum())
    objective = parse(name).objective.name
    assert first["tokens"] == first["generated"] == tokens
    assert first["teacher_passes"] == 16
    assert first["loss"] == pytest.approx(
        weighted_loss(job, [(data, objective, None)]) / tokens, rel=1e-4
    )


def test_samples_follow_the_students_current_weights(artifacts: Artifacts, tmp_path: Path) -> None:
    job = job_of(artifacts, tmp_path, "imitkd")
    made = source(job)
    before = made.fresh(0)
    with torch.no_grad():
        for value in made.student.model.parameters():
            value.mul_(0.5)
    assert not torch.equal(made.fresh(0).tokens, before.tokens)


def test_no_cross_entropy_on_the_students_own_samples(artifacts: Artifacts, tmp_path: Path) -> None:
    losses = []
    for weight in (0.0, 1.0):
        loss = artifacts.suite.loss.model_copy(update={"sft": weight})
        job = job_of(artifacts, tmp_path / str(weight), "imitkd", loss=loss)
        train(job)
        losses.append([row["loss"] for row in log(job)])
    assert losses[0] == losses[1]


def test_seqkd_is_cross_entropy_on_the_teachers_answers(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = job_of(artifacts, tmp_path, "seqkd")
    assert job.answers is not None
    answers = Encoded.load(job.answers / "train.safetensors")
    rows = batch_rows(len(answers), 16, 0, suite=job.seed_key, seed=0).tolist()
    picked = Encoded.of([(answers.prompt(row), answers.response(row)) for row in rows])
    train(job)
    teacher = Weights(artifacts.model("teacher") / "model")
    with_teacher = dataclasses.replace(job, live_teacher=teacher)
    tokens = int(picked.response_lengths.sum())
    wanted = weighted_loss(with_teacher, [(picked, "sft", None)]) / tokens
    assert log(job)[0]["loss"] == pytest.approx(wanted, rel=1e-4)
    assert log(job)[0]["generated"] == 0


def test_the_teachers_answers_are_its_own(artifacts: Artifacts, tmp_path: Path) -> None:
    job = job_of(artifacts, tmp_path, "seqkd")
    assert job.answers is not None
    answers, gold = Encoded.load(job.answers / "train.safetensors"), Encoded.load(job.train)
    assert [answers.prompt(i) for i in range(len(gold))] == [
        gold.prompt(i) for i in range(len(gold))
    ]
    assert any(answers.response(i) != gold.response(i) for i in range(len(gold)))


@pytest.mark.parametrize(("share", "same"), [(0, "jsd"), (1, "jsd@student")])
def test_mixed_at_its_ends_is_the_dataset_or_the_student(
    artifacts: Artifacts, tmp_path: Path, share: int, same: str
) -> None:
    one = job_of(artifacts, tmp_path / "one", f"jsd@mixed[student_share={share}]")
    other = job_of(artifacts, tmp_path / "other", same)
    train(one)
    train(other)
    assert_same_training(one, other, exactly=True)


def test_mixed_samples_in_about_its_share_of_the_steps(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    made = source(job_of(artifacts, tmp_path, "gkd"))
    draws = [made.random("mixed", step).random() < 0.5 for step in range(1000)]
    assert 430 < sum(draws) < 570


def test_the_contrastive_loss_is_both_sides_in_means_over_sequences(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = job_of(artifacts, tmp_path, "skew-kl@contrastive[student_share=0.5]", micro_batch=7)
    assert job.answers is not None
    own = source(job).fresh(0)
    answers = Encoded.load(job.answers / "train.safetensors")
    rows = batch_rows(len(answers), 16, 0, suite=job.seed_key, seed=0).tolist()
    theirs = Encoded.of([(answers.prompt(row), answers.response(row)) for row in rows])
    train(job)
    wanted = weighted_loss(
        job,
        [
            (theirs, "skew-kl", [1.5 / n for n in theirs.response_lengths.tolist()]),
            (own, "skew-reverse-kl", [0.5 / n for n in own.response_lengths.tolist()]),
        ],
    )
    assert log(job)[0]["loss"] == pytest.approx(wanted / 16, rel=1e-4)


def test_adaptive_reads_the_initial_students_dev_loss(artifacts: Artifacts, tmp_path: Path) -> None:
    job = job_of(artifacts, tmp_path, NEVER_SAMPLES)
    train_until(job, 5)
    from safetensors.torch import load_file

    memory = load_file(job.out / "checkpoint.safetensors")
    sft = make_job(artifacts, tmp_path / "zero", recipe=job.recipe.model_copy(update={"lr": 1e-12}))
    train(sft)
    assert float(memory["memory.sequences.reference"]) == pytest.approx(log(sft)[0]["dev_nll"])


RESUMED = ["gkd", "taid", "distillm-2", OFTEN_SAMPLES, "minillm[rollout_steps=3]"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_ratio_of_the_policy_gradient_is_1_whatever_the_dropout(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    pytest.importorskip("peft")
    student = tmp_path / "student"
    shutil.copytree(artifacts.model("student") / "model", student)
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    job = job_of(
        artifacts,
        tmp_path / "job",
        "minillm",
        initial=Weights(student),
        lora=Lora(rank=2, alpha=4, dropout=0.5),
        gradient_checkpointing=checkpointing,
    )
    ratios: list[torch.Tensor] = []
    loss = PolicyPortion.loss

    def observed(
        self: PolicyPortion, hidden: torch.Tensor, head: Head, batch: MicroBatch, teacher: Any
    ) -> torch.Tensor:
        assert self.rollout is not None
        old = self.of_batch(self.rollout.student_logp, batch, CPU)
        ratios.append((label_logp(hidden.detach(), head, batch.labels) - old).exp())
        return loss(self, hidden, head, batch, teacher)

    monkeypatch.setattr(PolicyPortion, "loss", observed)
    train_until(job, 1)
    first = torch.cat(ratios)
    torch.testing.assert_close(first, torch.ones_like(first), rtol=0, atol=0)


@pytest.mark.parametrize("expression", RESUMED)
def test_a_killed_trial_goes_on_to_the_same_weights(
    artifacts: Artifacts, tmp_path: Path, expression: str
) -> None:
    whole = job_of(artifacts, tmp_path / "whole", expression)
    train(whole)
    killed = job_of(artifacts, tmp_path / "killed", expression)
    for step in (6, 10):
        train_until(killed, step)
    train(killed)
    assert_same_training(whole, killed, exactly=True)


@pytest.mark.parametrize("expression", [*RESUMED, "imitkd", "seqkd"])
def test_a_source_trains_alike_in_small_micro_batches(
    artifacts: Artifacts, tmp_path: Path, expression: str
) -> None:
    recipe = artifacts.suite.recipe.model_copy(update={"steps": 1})
    norms = []
    for size in (16, 5):
        job = job_of(artifacts, tmp_path / str(size), expression, micro_batch=size, recipe=recipe)
        train(job)
        norms.append((log(job)[0]["loss"], log(job)[0]["grad_norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_the_often_sampling_scheduler_samples_replays_and_takes_gold(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    job = job_of(
        artifacts,
        tmp_path,
        OFTEN_SAMPLES,
        recipe=artifacts.suite.recipe.model_copy(update={"steps": 40}),
    )
    train(job)
    rows = log(job)
    kinds = {(row["generated"] > 0, row["teacher_passes"] > 0) for row in rows}
    assert kinds == {(True, True), (False, True), (False, False)}


def test_on_policy_training_lowers_the_reverse_kl(artifacts: Artifacts, tmp_path: Path) -> None:
    recipe = artifacts.suite.recipe.model_copy(update={"steps": 40})
    job = job_of(artifacts, tmp_path, "on-policy-kd", recipe=recipe)
    train(job)
    losses = [row["loss"] for row in log(job)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", ["imitkd", "distillm-2", "minillm"])
def test_a_student_that_cannot_be_sampled_from_has_diverged(
    artifacts: Artifacts, tmp_path: Path, name: str
) -> None:
    recipe = artifacts.suite.recipe.model_copy(update={"lr": 1e15, "warmup": 0})
    job = job_of(artifacts, tmp_path, name, recipe=recipe)
    train(job)
    trained = json.loads((job.out / "trained.json").read_text())
    assert trained["diverged_at"] is not None
    assert all(torch.isfinite(value).all() for value in weights(job).values())


@pytest.mark.parametrize("name", ["imitkd", "distillm-2", "minillm"])
def test_the_objectives_weight_scales_every_term(
    artifacts: Artifacts, tmp_path: Path, name: str
) -> None:
    recipe = artifacts.suite.recipe.model_copy(update={"steps": 1})
    norms = []
    for weight in (1.0, 0.5):
        loss = artifacts.suite.loss.model_copy(update={"kd": weight})
        job = job_of(artifacts, tmp_path / str(weight), name, loss=loss, recipe=recipe)
        train(job)
        norms.append(log(job)[0]["grad_norm"])
    assert norms[1] == pytest.approx(0.5 * norms[0], rel=1e-4)
