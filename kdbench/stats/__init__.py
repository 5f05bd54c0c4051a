"""Intervals, paired comparisons, tiers and stability figures."""
