"""Losses by context length for TensorBoard, a run of its own for each reading, and so a colour of its own in one chart.

RUN/                    losses while learning
RUN/positions kept/     by context length, the step being that length in tokens
RUN/positions dropped/
"""

from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from lightning_metatok.event_file import PATTERN, EventFile
from lightning_metatok.lit.ablations.readings import ReadingLoss

TAG = "by context length/nats per source token"


def write_by_length(folder: Path, losses: Sequence[ReadingLoss]) -> None:
    """Write the losses into folders of `folder`; those of an earlier end of the run go."""
    for reading in dict.fromkeys(loss.reading for loss in losses):
        target = folder / f"positions {reading}"
        for old in target.glob(PATTERN):
            old.unlink()
        events = EventFile(target)
        for loss in losses:
            if loss.reading == reading:
                value = Summary.Value(tag=TAG, simple_value=loss.nats)
                events.add_event(Event(step=loss.length, summary=Summary(value=[value])))
        events.close()
