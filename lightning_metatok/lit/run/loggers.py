"""The loggers of a run: metrics.jsonl, always, and TensorBoard events, or those that `trainer.logger` asks for.

`compare`, `report` and pictures read metrics.jsonl: a run without it would be none for them.
"""

import json
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary

from lightning_metatok.lit.checkpoints.log_state import METRICS, row_of
from lightning_metatok.lit.run.event_file import EventWriter
from lightning_metatok.pictures import as_png


class JsonlLogger(Logger):
    """Append one JSON object a call to `metrics.jsonl`: ``{"step": ..., name: value, ...}``."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Runs are told apart by their folder, so there is no version."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write one line; each line is complete, so a reader may follow the file while it grows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        values = {k: float(v) for k, v in _in_order(metrics)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Every line written so far that is one."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [row for row in map(row_of, lines) if row is not None]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters stand in config.yaml."""


class EventLogger(TensorBoardLogger):
    """TensorBoard events straight in the run folder, without Lightning's epoch curve and hyperparameter sub-run."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=str(folder), name="", version="", default_hp_metric=False)

    @property
    @rank_zero_experiment
    def experiment(self) -> EventWriter:
        """The writer, which goes on in the event file that the folder holds."""
        if self._experiment is None:
            self._experiment = EventWriter(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars at `step`."""
        super().log_metrics(dict(_in_order(metrics)), step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The Dashboard callback writes hyperparameters once, together with the final metrics."""

    def save(self) -> None:
        """Lightning would write hparams.yaml beside config.yaml; one runnable copy is enough."""


def run_loggers(
    folder: str | Path, given: Logger | Iterable[Logger] | bool | None = None, *, logs: bool = True
) -> list[Logger]:
    """The loggers of a run in `folder`: those `given`, TensorBoard events for True and None; always metrics.jsonl.

    `logs`: without it, as for `predict`, there are only those given.
    """
    if given is None or isinstance(given, bool):
        theirs: list[Logger] = [EventLogger(folder)] if logs and given is not False else []
    else:
        theirs = [given] if isinstance(given, Logger) else list(given)
    return [*theirs, JsonlLogger(folder)] if logs else theirs


def _in_order(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """By name: Lightning's order is that of their first appearance, which a run that goes on does not know."""
    return sorted((name, value) for name, value in metrics.items() if name != "epoch")


def log_folder(trainer: Trainer) -> Path | None:
    """Where the records of this run go; None without any. `trainer.log_dir` asks all ranks, so rank 0 alone may not."""
    return next((logger.path.parent for logger in trainer.loggers if isinstance(logger, JsonlLogger)), None)


@rank_zero_only
def show_figure(trainer: Trainer, tag: str, figure: Figure, path: Path | None) -> None:
    """Show a figure in TensorBoard's Images tab, and write it to `path`, where there is one, as a PNG.

    `add_figure` would draw it a second time.
    """
    picture = as_png(figure)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            writer.add_summary(image_summary(tag, figure, picture), trainer.global_step)
    if path is not None:
        save_picture(picture, path)


def image_summary(tag: str, figure: Figure, picture: bytes) -> Summary:
    """What TensorBoard's Images tab shows, as it is written to an event file."""
    width, height = figure.canvas.get_width_height()
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=picture)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def save_picture(picture: bytes, path: Path) -> None:
    """Write a PNG, replacing an older one in a single move."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(picture)
    temporary.replace(path)


@rank_zero_only
def log_text(trainer: Trainer, tag: str, text: str) -> None:
    """Show text in TensorBoard's Text tab."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, global_step=trainer.global_step)
