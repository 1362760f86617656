"""What TensorBoard shows, written into event files: numbers, pictures, texts, a layout, a row of hyperparameters."""

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, hparams_config_pb, hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_tensor_proto

from lightning_metatok.event_file import EventFile, exactly

Value = str | float


class Events:
    """The event file of one folder, which is one run to TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._file = EventFile(folder)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number."""
        self._write(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)

    def picture(self, tag: str, png: bytes) -> None:
        """Write a PNG."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]))

    def text(self, tag: str, markdown: str) -> None:
        """Write Markdown."""
        self._write(text_pb(tag, markdown))

    def layout(self, charts: Mapping[str, Sequence[layout_pb2.Chart]]) -> None:
        """Write the layout of the Custom Scalars tab: category -> charts."""
        # TensorBoard draws the charts of a category from the last to the first.
        categories = [layout_pb2.Category(title=title, chart=found[::-1]) for title, found in charts.items() if found]
        # tensorboard.plugins.custom_scalar.summary.pb would do this, and needs TensorFlow.
        tensor = make_tensor_proto(layout_pb2.Layout(category=categories).SerializeToString())
        tag, metadata = custom_scalars.CONFIG_SUMMARY_TAG, custom_scalars.create_summary_metadata()
        self._write(Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))

    def experiment(self, hyperparameters: Mapping[str, Sequence[Value]], metrics: Sequence[str]) -> None:
        """Write the columns of the HParams tab: hyperparameters with their values, of one type each, and metrics."""
        known = [HParam(name, Discrete(values)) for name, values in hyperparameters.items()]
        self._write(hparams_config_pb(known, [Metric(metric) for metric in metrics]))

    def row(self, hyperparameters: Mapping[str, Value]) -> None:
        """Write a row of the HParams tab; its metrics are the scalars of this file."""
        self._write(hparams_pb(dict(hyperparameters)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, summary: Summary, step: int = 0) -> None:
        self._file.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def margins(title: str, tags: Sequence[str]) -> layout_pb2.Chart:
    """A chart of means with their margins; of every tag there is `tag/mean`, `tag/low` and `tag/high`."""
    series = [
        layout_pb2.MarginChartContent.Series(value=f"{tag}/mean", lower=f"{tag}/low", upper=f"{tag}/high")
        for tag in tags
    ]
    return layout_pb2.Chart(title=title, margin=layout_pb2.MarginChartContent(series=series))


def lines(title: str, tags: Sequence[str]) -> layout_pb2.Chart:
    """A chart with a line for each tag and run."""
    content = layout_pb2.MultilineChartContent(tag=[exactly(tag) for tag in tags])
    return layout_pb2.Chart(title=title, multiline=content)
