"""A suite as data: its schema, how it is read, and what identifies work."""
