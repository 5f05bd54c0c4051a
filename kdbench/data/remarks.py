"""What a reader of the scores should know of a suite's records, and no digest says."""

import re
from collections.abc import Mapping, Sequence

from kdbench.data.record import Record


def remarks(records: Mapping[str, Sequence[Record]]) -> list[str]:
    """One sentence for each thing in a split's records that is allowed and yet moves scores.

    These are prompts that are trained on too, empty outputs, and references that ROUGE-L cannot
    read, since its tokens are runs of [a-z0-9].
    """
    trained = [name for name in ("train", "teacher") if name in records]
    found = []
    prompts = {
        name: [(row.instruction.strip(), row.input.strip()) for row in rows]
        for name, rows in records.items()
    }
    for name, rows in records.items():
        total = f"of {len(rows):,} records"
        for other in () if name in trained else trained:
            asked = set(prompts[other])
            if again := sum(prompt in asked for prompt in prompts[name]):
                found.append(f"{name}: {again:,} {total} have a prompt that stands in {other} too")
        if empty := sum(any(not text.strip() for text in row.outputs) for row in rows):
            found.append(f"{name}: {empty:,} {total} have an empty output")
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


def unreadable(text: str) -> bool:
    """Whether a text has letters, but none that ROUGE-L reads."""
    return any(map(str.isalpha, text)) and not re.search("[a-z0-9]", text.lower())
