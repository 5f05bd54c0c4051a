"""Tables and plots of a run, computed from its stored rows alone."""

from kdbench.report.publish import write_report
from kdbench.report.render import to_console, to_markdown
from kdbench.report.table import build_board, leaderboard

__all__ = ["build_board", "leaderboard", "to_console", "to_markdown", "write_report"]
