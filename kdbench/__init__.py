"""Hold everything fixed except the objective, and say with evidence which objective wins."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.report.frames import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """Imports what needs pandas when it is asked for."""
    if name == "load_run":
        from kdbench.report.frames import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
