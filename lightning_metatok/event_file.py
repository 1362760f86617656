"""One TensorBoard event file a folder, however often its writer goes on: TensorBoard's own begins another each time."""

import os
import re
import socket
import struct
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter, masked_crc32c

PATTERN = "events.out.tfevents.*"


def exactly(tag: str) -> str:
    """A custom-scalars pattern for one tag: TensorBoard matches patterns as prefixes otherwise."""
    return f"^{re.escape(tag)}$"


def whole_records(content: bytes) -> int:
    """Bytes up to the first record of an event file that is cut or is not what its checksums say."""
    at = 0
    while len(content) >= at + 12:
        head = content[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        data, sums = content[at + 12 : at + 12 + length], content[at + 8 : at + 12]
        end = at + 16 + length
        if sums != _checksum(head) or len(content) < end or content[end - 4 : end] != _checksum(data):
            break
        at = end
    return at


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))


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
