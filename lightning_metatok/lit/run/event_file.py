"""Lightning's TensorBoard logger on one event file a run, which goes on where a run goes on."""

from pathlib import Path

from torch.utils.tensorboard import FileWriter, SummaryWriter

from lightning_metatok.event_file import EventFile


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
