"""From hidden states to per-token values: the chunked head and the teacher's side of it."""
