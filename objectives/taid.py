"""TAID: a teacher that moves from the student's distribution to the teacher's own."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdbench.api import kl, number, stateful

EPSILON = 1e-15
"""Keeps the relative change of the loss finite, as in the released code."""


def _refused(params: Mapping[str, Any]) -> str | None:
    if params["t_end"] < params["t_start"]:
        return f"t_end={params['t_end']} lies before t_start={params['t_start']}"
    return None


@stateful(
    "taid",
    source="TAID, arXiv:2501.16937, Eq. 3 and Algorithm 1",
    check=_refused,
    infinite_where=lambda params: ["student"] if params["t_start"] == 1 else [],
    t_start=number(0.4, "(0, 1]"),
    t_end=number(1.0, "(0, 1]"),
    momentum=number(0.99, "[0, 1)"),
    step_size=number(5e-4, "[0, inf)"),
)
class Taid:
    """KL(softmax((1 - t) z_q + t z_p) || q), the student inside the mixture detached.

    t rises from `t_start` to `t_end` at least linearly in the share of the steps done, and faster
    while the loss falls: with d = (J_last - J)/(J_last + eps) of the global loss J and
    m <- `momentum` m + (1 - `momentum`) d, t + `step_size` sigmoid(m) (1 - t). The first step only
    stores J.
    """

    def __init__(self, *, t_start: float, t_end: float, momentum: float, step_size: float) -> None:
        self.t_start, self.t_end = t_start, t_end
        self.momentum, self.step_size = momentum, step_size
        self.t = t_start
        self.average = 0.0
        self.last_loss = math.nan
        """NaN until there is one."""

    def per_token(self, teacher_logp: Tensor, student_logp: Tensor) -> Tensor:
        if self.t == 1.0:
            return kl(teacher_logp, student_logp)
        mixture = (1.0 - self.t) * student_logp.detach() + self.t * teacher_logp
        # No id that both can say: there is nothing between them.
        apart = torch.isneginf(mixture).all(-1)
        target = torch.log_softmax(mixture.masked_fill(apart.unsqueeze(-1), 0.0), dim=-1)
        return kl(target, student_logp).masked_fill(apart, math.inf)

    def after_step(self, loss: float, progress: float) -> None:
        if not math.isnan(self.last_loss):
            change = (self.last_loss - loss) / (self.last_loss + EPSILON)
            self.average = self.momentum * self.average + (1.0 - self.momentum) * change
            linear = self.t_start + (self.t_end - self.t_start) * progress
            faster = self.t + self.step_size * _sigmoid(self.average) * (1.0 - self.t)
            self.t = min(self.t_end, max(linear, faster))
        self.last_loss = loss

    def state_dict(self) -> dict[str, float]:
        return {"t": self.t, "average": self.average, "last_loss": self.last_loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.t, self.average = state["t"], state["average"]
        self.last_loss = state["last_loss"]


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))
