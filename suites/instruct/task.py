"""What a task is: what is asked, in which words, and how an answer is worded."""

from dataclasses import dataclass

CATEGORIES = (
    "open_qa",
    "closed_qa",
    "classification",
    "information_extraction",
    "summarization",
    "brainstorming",
    "creative_writing",
    "general_qa",
)


@dataclass(frozen=True)
class Exercise:
    """One kind of instruction.

    Its texts are `str.format` templates over the fields of `world.FIELDS` and the slots it names.

    Attributes:
        category: one of `CATEGORIES`.
        asked: phrasings for all sets but `self-inst`; empty: a recombined task, for it alone.
        unseen: phrasings for `self-inst` alone.
        answers: three wordings, likeliest first.
        passages: texts that stand as the input; their fields are uniform, not the world's.
        slots: what the prompt names (`person`, `other` or pools of the world): the combination
            that is divided between training, dev and evaluation.
        weight: how often it is drawn beside the other tasks of its category.
    """

    category: str
    asked: tuple[str, ...]
    unseen: tuple[str, ...]
    answers: tuple[str, str, str]
    passages: tuple[str, ...] = ()
    slots: tuple[str, ...] = ("person",)
    weight: float = 1.0
