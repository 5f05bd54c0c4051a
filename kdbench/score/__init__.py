"""Scores of generated text: ROUGE-L, exact match, length and distinct-2."""

from kdbench.score.metrics import distinct_2, exact_match, length, score_trial, write_scores
from kdbench.score.rouge import rouge_l

__all__ = ["distinct_2", "exact_match", "length", "rouge_l", "score_trial", "write_scores"]
