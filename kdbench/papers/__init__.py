"""Published tables as data, and what a run says about them."""

from kdbench.compare.published_reproduction import Reproduction, reproduce
from kdbench.compare.published_tables import Published, Table, load_published

__all__ = ["Published", "Reproduction", "Table", "load_published", "reproduce"]
