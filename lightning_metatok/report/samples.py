"""Texts that runs logged as samples, read from their event files."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lightning_metatok.event_file import PATTERN

TAG = "sample"


def last_sample(folder: Path) -> str | None:
    """Return the text that a run logged last as `sample`; None where it logged none."""
    found = None
    for path in sorted(folder.glob(PATTERN)):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text" and value.tag.split("/")[0] == TAG:
                    found = value.tensor.string_val[0].decode("utf-8", "replace")
    return found
