"""A run's rows in the formats of other tools."""

from kdbench.report.export import FORMATS, Format, export, read_tables

__all__ = ["FORMATS", "Format", "export", "read_tables"]
