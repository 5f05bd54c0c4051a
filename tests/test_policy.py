"""MiniLLM's policy gradient against exact gradients and the plain clipped surrogate."""

import itertools

import pytest
import torch
from torch import Tensor

from kdbench.config.schema import Loss
from kdbench.data.batches import MicroBatch
from kdbench.data.encode import Encoded
from kdbench.head.chunked import Teacher, per_token_loss
from kdbench.models.model import Head
from kdbench.train.policy import PolicyPortion, Rollout, rewards_to_come
from kdbench.variants.variant import parse

IDS, WIDTH = 4, 3


def portion(data: Encoded, rollout: Rollout) -> PolicyPortion:
    return PolicyPortion(
        data=data,
        rows=torch.arange(len(data)),
        per_token=per_token_loss(parse("reverse-kl"), Loss()),
        teacher=None,
        weights=rollout.importance,
        rollout=rollout,
        clip=0.2,
    )


def micro_batch(data: Encoded) -> MicroBatch:
    labels = torch.tensor([token for row in range(len(data)) for token in data.response(row)])
    return MicroBatch(torch.arange(len(data)), torch.empty(0), torch.empty(0), labels)


def label_logp(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)


def random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_rewards_to_come_are_discounted_and_divided_by_their_number() -> None:
    rewards = torch.tensor([7.0, 1.0, 2.0, 4.0])
    wanted = [(1 + 0.5 * 2 + 0.25 * 4) / 3, (2 + 0.5 * 4) / 2, 4.0, 0.0]
    assert rewards_to_come(rewards, 0.5).tolist() == pytest.approx(wanted)


def test_a_discount_of_zero_leaves_an_infinite_reward_to_the_token_before_it() -> None:
    rewards = torch.tensor([1.0, 2.0, torch.inf, 4.0])
    assert rewards_to_come(rewards, 0.0).tolist() == pytest.approx([2 / 3, torch.inf, 4.0, 0.0])


def test_a_token_that_the_student_never_samples_counts_nothing() -> None:
    """The teacher drew it: its importance is 0, and its ratio and reward are infinite."""
    data = Encoded.of([([0], [0, 1, 2, 3])])
    hidden = random(0, 4, WIDTH).requires_grad_()
    head = Head(random(1, IDS, WIDTH), torch.tensor([0.0, -torch.inf, 0.0, 0.0]).double())
    beside = Teacher(random(2, 4, WIDTH), Head(random(3, IDS, WIDTH)))
    batch, kept = micro_batch(data), torch.tensor([1.0, 0.0, 1.0, 1.0]).double()
    old = label_logp(head.logits(hidden.detach()), batch.labels)
    assert torch.isneginf(old[1])
    advantage = torch.tensor([0.3, torch.inf, -0.2, 0.0]).double()
    loss = portion(data, Rollout(0, data, old, kept, advantage)).loss(hidden, head, batch, beside)
    (slope,) = torch.autograd.grad(loss, hidden)
    assert loss.isfinite()
    assert slope.isfinite().all()
    assert not slope[1].any()
    assert slope[[0, 2, 3]].any(-1).all()


def test_a_single_token_has_nothing_to_come() -> None:
    assert rewards_to_come(torch.tensor([3.0]), 0.9).tolist() == [0.0]


def test_the_expected_gradient_is_that_of_the_sequence_level_reverse_kl() -> None:
    """Two tokens, every sequence enumerated: there the length normalisation divides by 1."""
    head = random(0, IDS, WIDTH).requires_grad_()
    first, second = random(1, 1, WIDTH), random(2, IDS, WIDTH)  # second: by the first token
    teacher_head = random(3, IDS, WIDTH)
    teacher_first, teacher_second = random(4, 1, WIDTH), random(5, IDS, WIDTH)
    wanted, found = torch.zeros(()), torch.zeros_like(head)
    for one, two in itertools.product(range(IDS), repeat=2):
        labels = torch.tensor([one, two])
        hidden = torch.cat([first, second[one : one + 1]])
        beside = torch.cat([teacher_first, teacher_second[one : one + 1]])
        student_logp = label_logp(hidden @ head.T, labels)
        teacher_logp = label_logp(beside @ teacher_head.T, labels)
        log_q, log_p = student_logp.sum(), teacher_logp.sum()
        wanted = wanted + log_q.exp() * (log_q - log_p)
        data = Encoded.of([([0], [one, two])])
        reward = (teacher_logp - student_logp).detach()
        rollout = Rollout(
            0, data, student_logp.detach(), torch.ones(2).double(), rewards_to_come(reward, 1.0)
        )
        loss = portion(data, rollout).loss(
            hidden, Head(head), micro_batch(data), Teacher(beside, Head(teacher_head))
        )
        found += log_q.exp().detach() * torch.autograd.grad(loss, head)[0]
    torch.testing.assert_close(found, torch.autograd.grad(wanted, head)[0])


def test_the_loss_is_the_plain_clipped_surrogate_plus_the_weighted_divergence() -> None:
    tokens = 12
    data = Encoded.of([([0], list(range(IDS)) * 2), ([0], [1, 3, 2, 0])])
    batch, labels = micro_batch(data), micro_batch(data).labels
    hidden = random(0, tokens, WIDTH).requires_grad_()
    head = random(1, IDS, WIDTH).requires_grad_()
    beside = Teacher(random(2, tokens, WIDTH), Head(random(3, IDS, WIDTH)))
    new = label_logp(hidden @ head.T, labels)
    rollout = Rollout(
        0,
        data,
        student_logp=new.detach() + 0.4 * random(4, tokens),  # ratios on both sides of the clip
        importance=random(5, tokens).exp(),
        advantage=random(6, tokens),
    )
    ratio = (new - rollout.student_logp).exp()
    assert (ratio > 1.2).any()
    assert (ratio < 0.8).any()
    q = (hidden @ head.T).log_softmax(-1)
    p = beside.head.logits(beside.hidden).log_softmax(-1)
    clipped = torch.minimum(ratio * rollout.advantage, ratio.clamp(0.8, 1.2) * rollout.advantage)
    divergence = (q.exp() * (q - p)).sum(-1)
    wanted = (rollout.importance * (divergence - clipped)).sum()
    found = portion(data, rollout).loss(hidden, Head(head), batch, beside)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, [hidden, head]), torch.autograd.grad(wanted, [hidden, head])
    )
