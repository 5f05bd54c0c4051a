"""Text from records, models, boards and other people's errors, made harmless where it is shown."""

import unicodedata
from typing import Any

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, colours, reorders or hides."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """The text with control characters as escapes; ends of lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_seen, text))


def csv_of(frame: Any) -> str:
    """A pandas table as CSV, every float to its last bit.

    Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers do not.
    """
    guarded = frame.copy(deep=False)
    for name in frame.columns:
        if frame[name].map(lambda value: isinstance(value, str)).any():
            guarded[name] = frame[name].map(_guarded)
    text: str = guarded.to_csv(index=False, lineterminator="\n")
    return text


def _seen(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode()


def _guarded(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
