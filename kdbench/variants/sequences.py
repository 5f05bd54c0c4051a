"""Where training sequences come from: the names and parameters of the sources.

What they do stands in `kdbench.train.sources`. A source goes with any objective and is written
behind it: `skew-reverse-kl@adaptive[threshold=0.1]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdbench.base.registry import Registry
from kdbench.variants.parameters import Inner, Number, Parameter, Value, resolve, written


@dataclass(frozen=True, eq=False)
class Source:
    """A registered source of sequences.

    Attributes:
        samples: sequences are sampled from the student while it trains.
        teacher_answers: it needs the teacher's own responses to the training prompts.
    """

    name: str
    parameters: Mapping[str, Parameter]
    source: str
    description: str
    samples: bool
    teacher_answers: bool

    def variant(self, given: Mapping[str, object]) -> "SourceVariant":
        """This source with some parameters given and the others at their defaults.

        Raises:
            UserError: an unknown parameter, or a value out of range.
        """
        return SourceVariant(self, resolve(f"@{self.name}", self.parameters, given))


@dataclass(frozen=True)
class SourceVariant:
    """A source with its parameters fixed."""

    source: Source
    params: Mapping[str, Value] = field(hash=False)

    def written(self, *, defaults: bool) -> str:
        """The canonical name; parameters at their defaults only where asked for."""
        return written(self.source.name, self.source.parameters, self.params, defaults=defaults)

    def number(self, name: str) -> float:
        """The value of a parameter that is a number."""
        return float(self.params[name])  # type: ignore[arg-type]


SOURCES: Registry[Source] = Registry("source")


def _declare(
    name: str,
    description: str,
    *,
    source: str = "",
    samples: bool = False,
    teacher_answers: bool = False,
    **parameters: Parameter,
) -> None:
    SOURCES.add(
        name, Source(name, parameters, source, description, samples, teacher_answers), __file__
    )


def _plain_divergence(expression: str) -> Any:
    from kdbench.variants.select import inner

    return inner(expression).default


_declare("dataset", "The gold responses, off-policy; what is used where no source is written.")
_declare(
    "teacher",
    "The teacher's own responses to the training prompts, sampled once at temperature 1. SeqKD is "
    "`sft@teacher`: cross-entropy only.",
    source="SeqKD, arXiv:1606.07947",
    teacher_answers=True,
)
_declare(
    "student",
    "Fresh samples of the student in every step, at temperature 1.",
    source="ImitKD, arXiv:2009.07253; on-policy distillation, arXiv:2306.13649",
    samples=True,
)
_declare(
    "mixed",
    "In every step, with probability `student_share` fresh samples of the student, else the gold "
    "responses.",
    source="GKD, arXiv:2306.13649, Algorithm 1",
    samples=True,
    student_share=Number(0.5, "[0, 1]"),
)
_declare(
    "adaptive",
    "With r uniform in every step: fresh samples, pushed to the replay buffer, where r is below "
    "threshold (1 - progress), or below threshold while the buffer is not full; else a draw from "
    "the buffer where r is below threshold; else the gold responses. The threshold rises by "
    "`increment` (to at most 1), and the reference loss moves, only when the loss on dev is at "
    "least the reference plus `tolerance`.",
    source="DistiLLM, arXiv:2402.03898, Section 3.2 and its released code",
    samples=True,
    threshold=Number(0.0, "[0, 1]"),
    increment=Number(0.1, "[0, 1]"),
    tolerance=Number(0.1, "[0, inf)"),
    capacity=Number(1000.0, "[1, inf)"),
)
_declare(
    "contrastive",
    "(2 - b) times the objective on the teacher's responses plus b = `student_share` times "
    "`student_divergence` on fresh samples of the student, each a mean over sequences of means "
    "over tokens.",
    source="DistiLLM-2, arXiv:2503.07067",
    samples=True,
    teacher_answers=True,
    student_divergence=Inner(
        "skew-reverse-kl[teacher_weight=0.9,detach_mixture=true]", _plain_divergence
    ),
    student_share=Number(1.0, "[0, 2]"),
)
_declare(
    "policy-gradient",
    "The objective as the single-step term on responses sampled from (1 - `teacher_mix`) q + "
    "`teacher_mix` p, and the policy gradient of the later tokens' rewards log p - log q, "
    "discounted by `gamma` and divided by the number of tokens to come. Both are weighted by "
    "q(y) over the sampling probability. Responses are sampled for `rollout_steps` batches at a "
    "time; the ratio to the student that sampled is clipped to 1 +- `clip`.",
    source="MiniLLM, arXiv:2306.08543, Section 2.2 (clip, gamma: its released code)",
    samples=True,
    teacher_mix=Number(0.2, "[0, 1)"),
    clip=Number(0.2, "(0, 1)"),
    gamma=Number(0.95, "[0, 1]"),
    rollout_steps=Number(4.0, "[1, inf)"),
)

DATASET = SOURCES["dataset"].variant({})
