"""Suites' records -> token ids -> batches."""

from kdbench.data.encode import encode_record
from kdbench.data.record import Record

__all__ = ["Record", "encode_record"]
