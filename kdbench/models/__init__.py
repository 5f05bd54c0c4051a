"""Models: built, read from a folder, the hub or a GGUF file, probed and sampled from."""
