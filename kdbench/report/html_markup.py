"""The former name of `kdbench.report.markdown`, for html_evidence.py."""

from kdbench.report.markdown import from_markdown, scrolling

__all__ = ["from_markdown", "scrolling"]
