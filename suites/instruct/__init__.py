"""The embedded suite `instruct`: a small world, its tasks and their generator."""

from .sets import generate

__all__ = ["generate"]
