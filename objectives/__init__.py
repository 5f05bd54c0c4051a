"""One file a family, one short function an objective. A file put here is found by itself."""
