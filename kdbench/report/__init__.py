"""Tables, plots and pages of a run, computed from its stored rows alone."""
