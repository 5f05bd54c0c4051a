"""The ground floor: errors, seeds, registries, and files that appear whole or not at all."""
