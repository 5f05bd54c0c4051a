"""The files that a new objective starts from: a small one that works, and its test.

Both are complete: the objective passes the conformance suite as it stands, and its test holds it
to that and to a value worked out by other means.
"""

from typing import Literal

from kdbench.base.templates import render

Kind = Literal["divergence", "labelled", "stateful"]


def files(name: str, kind: Kind) -> dict[str, str]:
    """The objective and its test, by file name."""
    module = module_of(name)
    words = {
        "title": name,
        "module": module,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
        "kind": kind,
    }
    return {
        f"{prefix}{module}.py": render(f"authoring/{prefix}objective.py.jinja", **words)
        for prefix in ("", "test_")
    }


def module_of(name: str) -> str:
    """The name as an identifier of Python."""
    return name.replace("-", "_")
