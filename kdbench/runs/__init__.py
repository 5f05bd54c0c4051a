"""A run's folder: where its files lie, and its results read back."""
