"""What an objective's values are: one a token, its own, the same every time."""

import torch

from kdbench.authoring.cases import (
    IDS,
    TOKENS,
    Case,
    difference,
    ordinary,
    values,
    values_and_gradient,
)
from kdbench.variants.objective import State
from kdbench.variants.variant import Variant


def shape_and_dtype(variant: Variant) -> str:
    """[N] in the dtype of the inputs, finite on ordinary distributions."""
    for dtype in (torch.float64, torch.float32):
        found = values(variant, ordinary(dtype))
        if found.shape != (TOKENS,):
            return f"the shape is {list(found.shape)} for {TOKENS} tokens, not [{TOKENS}]"
        if found.dtype != dtype:
            return f"{found.dtype} comes out where {dtype} goes in"
        if not found.isfinite().all():
            return f"{found.tolist()} on ordinary distributions in {dtype}"
    return ""


def takes_no_tokens(variant: Variant) -> str:
    """[0, V] gives [0], and a gradient [0, V]: a micro-batch whose mask is empty."""
    found, gradient = values_and_gradient(variant, ordinary(torch.float32).rows(slice(0)))
    if found.shape == (0,) and gradient.shape == (0, IDS):
        return ""
    return (
        f"values {list(found.shape)} and gradient {list(gradient.shape)} for no tokens of {IDS} "
        f"ids, not [0] and [0, {IDS}]"
    )


def is_a_divergence(variant: Variant) -> str:
    """Above 0 where the distributions differ, 0 where they do not, up to rounding."""
    for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        case = ordinary(dtype)
        found = values(variant, case)
        if not (found > 0).all():
            return f"{found.tolist()} in {dtype} where the distributions differ"
        close = Case(case.teacher, case.teacher + 1e-3 * case.student, case.labels)
        found = values(variant, close)
        if not (found >= -slack).all():
            return f"{found.tolist()} in {dtype} where the distributions are close"
        equal = Case(case.teacher, case.teacher, case.labels)
        found, gradient = values_and_gradient(variant, equal)
        if not (found.abs() <= slack).all():
            return f"{found.tolist()} in {dtype} where the distributions are equal, not 0"
        if not gradient.isfinite().all():
            return f"gradient {gradient.tolist()} in {dtype} where the distributions are equal"
    return ""


def permutes(variant: Variant) -> str:
    """Ids are names: another order of the vocabulary changes nothing."""
    case = ordinary(torch.float64)
    order = torch.randperm(IDS, generator=torch.Generator().manual_seed(1))
    moved = Case(case.teacher[:, order], case.student[:, order], order.argsort()[case.labels])
    found, gradient = values_and_gradient(variant, case)
    return difference(
        (found, gradient[:, order]), values_and_gradient(variant, moved), "after a permutation"
    )


def is_per_token(variant: Variant) -> str:
    """A token's value is the same alone, in a chunk and in a batch."""
    case = ordinary(torch.float64)
    alone = [values_and_gradient(variant, case.rows(slice(row, row + 1))) for row in range(TOKENS)]
    wanted = torch.cat([found for found, _ in alone]), torch.cat([grad for _, grad in alone])
    return difference(wanted, values_and_gradient(variant, case), "together instead of alone")


def is_deterministic(variant: Variant) -> str:
    """The same bits twice, whatever the random state."""
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(values(variant, ordinary(torch.float32)))
    same = torch.equal(results[0], results[1])
    return "" if same else f"{results[0].tolist()}, then {results[1].tolist()}"


def keeps_inputs(variant: Variant) -> str:
    """Nothing that it is given is changed in place."""
    case = ordinary(torch.float32)
    inputs = {
        "teacher_logp": torch.log_softmax(case.teacher, -1),
        "student_logp": torch.log_softmax(case.student, -1),
        "labels": case.labels.clone(),
    }
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    variant(*inputs.values())
    changed = [name for name, tensor in inputs.items() if not torch.equal(tensor, before[name])]
    return f"changes {', '.join(changed)} in place" if changed else ""


def resumes(variant: Variant) -> str:
    """Of a stateful objective: after `load_state_dict` it is where it would have been anyway."""
    uninterrupted, stopped, resumed = (_begin(variant) for _ in range(3))
    losses = (2.0, 1.7, 1.9, 1.1, 0.8, 0.9)
    for step, loss in enumerate(losses):
        if step == len(losses) // 2:
            resumed.load_state_dict(stopped.state_dict())
            stopped = resumed
        for state in (uninterrupted, stopped):
            state.after_step(loss, (step + 1) / len(losses))
    case = ordinary(torch.float64)
    logp = torch.log_softmax(case.teacher, -1), torch.log_softmax(case.student, -1)
    wanted, found = uninterrupted.per_token(*logp), resumed.per_token(*logp)
    if torch.equal(wanted, found):
        return ""
    return f"{found.tolist()} after a resumption, {wanted.tolist()} without one"


def _begin(variant: Variant) -> State:
    state = variant.begin()
    assert state is not None
    return state
