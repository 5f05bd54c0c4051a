"""Where tasks run: worker processes on this machine."""
