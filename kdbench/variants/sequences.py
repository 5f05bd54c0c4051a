"""Where training sequences come from: the names and parameters of the sources.

What they do stands in `kdbench.train.sources`. A source goes with any objective and is written
behind it: `skew-reverse-kl@adaptive[threshold=0.1]`.
"""

from typing import Any

from kdbench.variants.objective import SOURCES, Source
from kdbench.variants.parameters import Number
from kdbench.variants.variant import inner


def _declare(name: str, description: str, **facts: Any) -> None:
    SOURCES.add(name, Source(name, description, **facts), __file__)


_declare(
    "teacher",
    "The teacher's own responses to the training prompts, sampled once at temperature 1. SeqKD is "
    "`sft@teacher`: cross-entropy only.",
    paper="SeqKD, arXiv:1606.07947",
    teacher_answers=True,
)
_declare(
    "student",
    "Fresh samples of the student in every step, at temperature 1.",
    paper="ImitKD, arXiv:2009.07253; on-policy distillation, arXiv:2306.13649",
    samples=True,
)
_declare(
    "mixed",
    "In every step, with probability `student_share` fresh samples of the student, else the gold "
    "responses.",
    paper="GKD, arXiv:2306.13649, Algorithm 1",
    samples=True,
    parameters={"student_share": Number(0.5, "[0, 1]")},
)
_declare(
    "adaptive",
    "With r uniform in every step: fresh samples, pushed to the replay buffer, where r is below "
    "threshold (1 - progress), or below threshold while the buffer is not full; else a draw from "
    "the buffer where r is below threshold; else the gold responses. The threshold rises by "
    "`increment` (to at most 1), and the reference loss moves, only when the loss on dev is at "
    "least the reference plus `tolerance`.",
    paper="DistiLLM, arXiv:2402.03898, Section 3.2 and its released code",
    samples=True,
    parameters={
        "threshold": Number(0.0, "[0, 1]"),
        "increment": Number(0.1, "[0, 1]"),
        "tolerance": Number(0.1, "[0, inf)"),
        "capacity": Number(1000.0, "[1, inf)"),
    },
)
_declare(
    "contrastive",
    "(2 - b) times the objective on the teacher's responses plus b = `student_share` times "
    "`student_divergence` on fresh samples of the student, each a mean over sequences of means "
    "over tokens.",
    paper="DistiLLM-2, arXiv:2503.07067",
    samples=True,
    teacher_answers=True,
    parameters={
        "student_divergence": inner("skew-reverse-kl[teacher_weight=0.9,detach_mixture=true]"),
        "student_share": Number(1.0, "[0, 2]"),
    },
)
_declare(
    "policy-gradient",
    "The objective as the single-step term on responses sampled from (1 - `teacher_mix`) q + "
    "`teacher_mix` p, and the policy gradient of the later tokens' rewards log p - log q, "
    "discounted by `gamma` and divided by the number of tokens to come. Both are weighted by "
    "q(y) over the sampling probability. Responses are sampled for `rollout_steps` batches at a "
    "time; the ratio to the student that sampled is clipped to 1 +- `clip`. The student trains "
    "without dropout.",
    paper="MiniLLM, arXiv:2306.08543, Section 2.2 (clip, gamma: its released code)",
    samples=True,
    dropout=False,
    parameters={
        "teacher_mix": Number(0.2, "[0, 1)"),
        "clip": Number(0.2, "(0, 1)"),
        "gamma": Number(0.95, "[0, 1]"),
        "rollout_steps": Number(4.0, "[1, inf)"),
    },
)
