"""The files that a new objective starts from: a small one that works, and its test.

Both are complete: the objective passes the conformance suite as it stands, and its test holds it
to that and to a value worked out by other means.
"""

from typing import Literal

Kind = Literal["divergence", "labelled", "stateful"]


def files(name: str, kind: Kind) -> dict[str, str]:
    """The objective and its test, by file name."""
    module = module_of(name)
    objective, oracle = _TEMPLATES[kind]
    return {
        f"{module}.py": _filled(objective, name),
        f"test_{module}.py": _filled(_TEST_HEAD + oracle, name),
    }


def module_of(name: str) -> str:
    """The name as an identifier of Python."""
    return name.replace("-", "_")


def _filled(template: str, name: str) -> str:
    words = name.split("-")
    return (
        template.replace("<name>", name)
        .replace("<module>", module_of(name))
        .replace("<Class>", "".join(word.capitalize() for word in words))
    )


_DIVERGENCE = '''\
"""<name>: fill in what it is for."""

from kdbench.api import divergence, number


@divergence(
    "<name>",
    source="fill in: authors, arXiv number, equation",
    infinite_where=[],  # ["student"]: +inf at an id where only the student's probability is 0
    order=number(0.5, "(0, 1)"),
)
def <module>(teacher_logp, student_logp, *, order):
    """log(sum p^a q^(1-a)) / (a - 1) with a = `order`: Renyi's divergence, to be replaced.

    Args:
        teacher_logp: log-probabilities of the teacher, p, [N, V].
        student_logp: log-probabilities of the student, q, [N, V].
        order: a.

    Returns:
        One value per token, [N]: neither a mean nor a sum over tokens.
    """
    terms = order * teacher_logp + (1 - order) * student_logp
    return terms.logsumexp(dim=-1) / (order - 1)
'''

_LABELLED = '''\
"""<name>: fill in what it is for."""

from kdbench.api import kl, labelled, number


@labelled(
    "<name>",
    source="fill in: authors, arXiv number, equation",
    infinite_where=["student"],  # [] where it is finite at an id that the student cannot say
    label_weight=number(0.5, "(0, 1)"),
)
def <module>(teacher_logp, student_logp, *, labels, label_weight):
    """-w log q(label) + (1 - w) KL(p || q) with w = `label_weight`: an example, to be replaced.

    Args:
        teacher_logp: log-probabilities of the teacher, p, [N, V].
        student_logp: log-probabilities of the student, q, [N, V].
        labels: token ids, [N].
        label_weight: w.

    Returns:
        One value per token, [N]: neither a mean nor a sum over tokens.
    """
    surprise = -student_logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return label_weight * surprise + (1 - label_weight) * kl(teacher_logp, student_logp)
'''

_STATEFUL = '''\
"""<name>: fill in what it is for."""

from kdbench.api import kl, number, stateful


@stateful(
    "<name>",
    source="fill in: authors, arXiv number, equation",
    infinite_where=["teacher", "student"],  # at ids where only this one's probability is 0
    start=number(0.9, "(0, 1)"),
    stop=number(0.1, "(0, 1)"),
)
class <Class>:
    """t KL(p || q) + (1 - t) KL(q || p): an example, to be replaced.

    t goes from `start` to `stop` in proportion to the share of the steps done.
    """

    def __init__(self, *, start, stop):
        self.start, self.stop = start, stop
        self.t = start

    def per_token(self, teacher_logp, student_logp):
        """Values [N] of log-probabilities [N, V], as things stand."""
        forward, reverse = kl(teacher_logp, student_logp), kl(student_logp, teacher_logp)
        return self.t * forward + (1 - self.t) * reverse

    def after_step(self, loss, progress):
        """Told the loss of the whole batch and the share of the steps done, in (0, 1]."""
        self.t = self.start + (self.stop - self.start) * progress

    def state_dict(self):
        """All that `after_step` changes: a resumed run goes on from here."""
        return {"t": self.t}

    def load_state_dict(self, state):
        self.t = state["t"]
'''

_TEST_HEAD = '''\
"""What every objective is held to, and values worked out by other means."""

import math
from pathlib import Path

import pytest
import torch
from kdbench.api import objective
from kdbench.authoring.conformance import check
from kdbench.variants.select import load_plugin

load_plugin(Path(__file__).with_name("<module>.py"))

NAME = "<name>"
TEACHER = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
STUDENT = torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64)


def test_it_conforms():
    findings = check(objective(NAME))
    failed = [f"{item.property}: {item.detail}" for item in findings if not item.ok]
    assert not failed, "\\n".join(failed)


'''

_DIVERGENCE_TEST = """\
def test_its_value_is_that_of_the_formula():
    # Of order 1/2 it is -2 log of the overlap, here sqrt(.7 .4) + sqrt(.2 .4) + sqrt(.1 .2).
    overlap = math.sqrt(0.28) + math.sqrt(0.08) + math.sqrt(0.02)
    value = objective(f"{NAME}[order=0.5]")(TEACHER.log(), STUDENT.log())
    assert value.tolist() == pytest.approx([-2 * math.log(overlap)])
"""

_LABELLED_TEST = """\
def test_its_value_is_that_of_the_formula():
    kl = 0.7 * math.log(0.7 / 0.4) + 0.2 * math.log(0.2 / 0.4) + 0.1 * math.log(0.1 / 0.2)
    variant = objective(f"{NAME}[label_weight=0.25]")
    value = variant(TEACHER.log(), STUDENT.log(), labels=torch.tensor([1]))
    assert value.tolist() == pytest.approx([-0.25 * math.log(0.4) + 0.75 * kl])
"""

_STATEFUL_TEST = """\
def test_it_ends_with_the_weights_of_its_last_step():
    forward = 0.7 * math.log(0.7 / 0.4) + 0.2 * math.log(0.2 / 0.4) + 0.1 * math.log(0.1 / 0.2)
    reverse = 0.4 * math.log(0.4 / 0.7) + 0.4 * math.log(0.4 / 0.2) + 0.2 * math.log(0.2 / 0.1)
    state = objective(f"{NAME}[start=0.5,stop=0.25]").begin()
    state.after_step(loss=1.0, progress=1.0)
    value = state.per_token(TEACHER.log(), STUDENT.log())
    assert value.tolist() == pytest.approx([0.25 * forward + 0.75 * reverse])


def test_it_goes_on_from_its_state():
    one, other = objective(NAME).begin(), objective(NAME).begin()
    one.after_step(loss=1.0, progress=0.5)
    other.load_state_dict(one.state_dict())
    values = [state.per_token(TEACHER.log(), STUDENT.log()) for state in (one, other)]
    assert torch.equal(*values)
"""

_TEMPLATES: dict[Kind, tuple[str, str]] = {
    "divergence": (_DIVERGENCE, _DIVERGENCE_TEST),
    "labelled": (_LABELLED, _LABELLED_TEST),
    "stateful": (_STATEFUL, _STATEFUL_TEST),
}
