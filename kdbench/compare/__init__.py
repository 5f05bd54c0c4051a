"""Two or more runs side by side; a run beside a published table."""

from kdbench.compare.pairs import Pair, compare, labels, to_markdown

__all__ = ["Pair", "compare", "labels", "to_markdown"]
