"""The one training loop that every objective shares."""
