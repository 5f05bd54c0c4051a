"""TensorBoard: event files in the run's own folder, below `tensorboard/`."""

import json
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kdbench.track import Points, Status, Subject, flat


def begin(subject: Subject, known: str | None) -> "_TensorboardSession":
    """Opens the trial's folder; an event file more is how TensorBoard goes on."""
    session = _TensorboardSession(subject)
    if known is None:
        text = json.dumps(subject.config, indent=2, ensure_ascii=False)
        session.add(hparams_pb(flat(subject.config["trial"]), trial_id=subject.folder))
        session.add(text_pb("config", f"```json\n{text}\n```"))
    return session


class _TensorboardSession:
    def __init__(self, subject: Subject) -> None:
        self.id = subject.folder
        self._writer = EventFileWriter(str(subject.run / "tensorboard" / subject.folder))

    def add(self, summary: Summary, step: int = 0) -> None:
        self._writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))

    def log(self, points: Points) -> None:
        for step, figures in points:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
            self.add(Summary(value=values), step)
        self._writer.flush()

    def end(self, status: Status, figures: dict[str, float], step: int) -> None:
        if status != "open":
            self.log([(step, figures)])
            self.add(text_pb("status", status), step)
        self._writer.close()
