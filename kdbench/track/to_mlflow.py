"""MLflow: the server or folder of MLFLOW_TRACKING_URI, or `mlflow.db` in the run's folder."""

import os
import time

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from kdbench.track import Points, Status, Subject, flat

AT_ONCE = 100
"""Parameters that MLflow takes at once."""
LONGEST = 500
"""Characters of a parameter's value."""


def begin(subject: Subject, known: str | None) -> "_MlflowSession":
    """Opens an MLflow run in the experiment of the kdbench run."""
    local = f"sqlite:///{subject.run.resolve() / 'mlflow.db'}"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
    if known is not None:
        client.update_run(known, status="RUNNING")
        return _MlflowSession(client, known)
    name = f"kdbench {subject.run.name}"
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment else client.create_experiment(name)
    run = client.create_run(place, run_name=subject.name)
    params = [Param(key, str(value)[:LONGEST]) for key, value in flat(subject.config).items()]
    for start in range(0, len(params), AT_ONCE):
        client.log_batch(run.info.run_id, params=params[start : start + AT_ONCE])
    return _MlflowSession(client, run.info.run_id)


class _MlflowSession:
    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client

    def log(self, points: Points) -> None:
        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, step)
            for step, figures in points
            for name, value in figures.items()
        ]
        self._client.log_batch(self.id, metrics=metrics)

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        if status != "open":
            self.log([(step, figures)])
            self._client.set_tag(self.id, "status", status)
        self._client.set_terminated(self.id, "KILLED" if status == "open" else "FINISHED")
