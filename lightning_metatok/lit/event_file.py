"""One TensorBoard event file a run, however often it goes on: TensorBoard's own writer begins another each time."""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

PATTERN = "events.out.tfevents.*"


class EventFile:
    """Appends events to the event file of a folder, or begins one; every record is handed to the system at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = min(folder.glob(PATTERN), default=folder / name)
        self.goes_on = self.path.exists() and self.path.stat().st_size > 0
        self._open()
        if not self.goes_on:
            self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _open(self) -> None:
        self._file = self.path.open("ab")
        self._records = RecordWriter(self._file)

    def get_logdir(self) -> str:
        """The folder."""
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Append one event."""
        self._records.write(event.SerializeToString())
        self._file.flush()

    def flush(self) -> None:
        """Every event has left this process already."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def reopen(self) -> None:
        """Open it again after `close`."""
        if self._file.closed:
            self._open()


class _OneFile(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = EventFile(folder)


class EventWriter(SummaryWriter):
    """SummaryWriter on an `EventFile`."""

    all_writers: dict[str, _OneFile] | None  # type: ignore[assignment]
    file_writer: _OneFile | None  # type: ignore[assignment]

    def _get_file_writer(self) -> _OneFile:
        if self.all_writers is None or self.file_writer is None:
            self.file_writer = _OneFile(Path(self.log_dir))
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer

    @property
    def goes_on(self) -> bool:
        """Whether the file held events when it was opened."""
        return bool(self._get_file_writer().event_writer.goes_on)
