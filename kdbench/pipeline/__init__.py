"""From a request to finished trials: the plan, the artefacts, the stages and the run."""
