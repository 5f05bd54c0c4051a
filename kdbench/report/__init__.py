"""Tables and plots of a run, computed from its stored rows alone."""

from kdbench.report.render import to_console, to_markdown
from kdbench.report.table import build_board, leaderboard
from kdbench.report.write import write_report

__all__ = ["build_board", "leaderboard", "to_console", "to_markdown", "write_report"]
