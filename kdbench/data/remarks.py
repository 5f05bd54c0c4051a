"""What a reader of the scores should know of a suite's records, and no digest says."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from kdbench.data.record import Record

_FRAME_TEXT = re.compile(r"### (?:Instruction|Input|Response):|<\|\w{1,24}\|>|</?s>|\[/?INST\]")
"""The headings of the Alpaca frame, and what tokenizers call the ends of turns and documents."""


def remarks(records: Mapping[str, Sequence[Record]]) -> list[str]:
    """One sentence for each thing that is allowed and yet moves scores.

    Args:
        records: of every split that is there, by its name.

    Returns:
        Of each split: prompts that are trained on too, empty outputs, text of a prompt's frame, and
        references that ROUGE-L cannot read, since its tokens are runs of [a-z0-9].
    """
    trained = [name for name in ("train", "teacher") if name in records]
    found = []
    for name, rows in records.items():
        total = f"of {len(rows):,} records"
        for other in () if name in trained else trained:
            asked = {(row.instruction.strip(), row.input.strip()) for row in records[other]}
            again = sum((row.instruction.strip(), row.input.strip()) in asked for row in rows)
            if again:
                found.append(f"{name}: {again:,} {total} have a prompt that stands in {other} too")
        if empty := sum(any(not text.strip() for text in row.outputs) for row in rows):
            found.append(f"{name}: {empty:,} {total} have an empty output")
        found += framed(name, rows)
        if name not in (*trained, "dev"):
            found += foreign(name, rows)
    return found


def foreign(name: str, rows: Sequence[Record]) -> list[str]:
    """A sentence on the records of a set that ROUGE-L cannot score, where there are any."""
    count = sum(all(map(unreadable, row.outputs)) for row in rows)
    if not count:
        return []
    return [
        f"{name}: {count:,} of {len(rows):,} records have only references without a-z and 0-9 "
        "(another script): ROUGE-L is 0 for them, whatever is answered"
    ]


def framed(name: str, rows: Sequence[Record]) -> list[str]:
    """A sentence on the records that hold text of a prompt's frame, where there are any."""
    held: Counter[str] = Counter()
    count = 0
    for row in rows:
        said = [row.instruction, row.input, *row.outputs, *(turn.content for turn in row.turns)]
        found = {text for part in said for text in _FRAME_TEXT.findall(part)}
        held.update(found)
        count += bool(found)
    if not count:
        return []
    named = ", ".join(f"{text} ({number:,})" for text, number in held.most_common(3))
    return [
        f"{name}: {count:,} of {len(rows):,} records hold text that prompts are framed with: "
        f"{named}; it is encoded as text, and a student may learn to write it"
    ]


def unreadable(text: str) -> bool:
    """Whether a text has letters, but none that ROUGE-L reads."""
    return any(map(str.isalpha, text)) and not re.search("[a-z0-9]", text.lower())
