"""For who writes an objective: conformance, the catalogue with its pictures, the scaffold."""
