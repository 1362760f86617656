"""TensorBoard's first answers without typing: charts, and hyperparameters with the final metrics.

    RUN/                      losses while learning, speed; its row of the HParams tab
    RUN/positions kept/       by context length, the step being that length: a run of its own to TensorBoard, and so a
    RUN/positions dropped/    colour of its own, in one chart with the other

TensorBoard smooths lines and not margins, so what is logged seldom is a margin without width. It says "Missing Tags"
where a run has some tags of a margin chart and lacks others, so a chart has one tag.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams as hparams_summary

from lightning_metatok.event_file import PATTERN, EventFile, exactly
from lightning_metatok.lit.callbacks.arm_card import ARM
from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.position_ablation import Cell, PositionAblation
from lightning_metatok.lit.figures import run_figure, save_figure
from lightning_metatok.lit.loggers import JsonlLogger, log_figure, log_folder, log_text


def _lines(tags: Iterable[str]) -> list[Any]:
    """A chart with a line for each tag."""
    return ["Multiline", [exactly(tag) for tag in tags]]


def _points(tag: str) -> list[Any]:
    """A chart of one tag, which is not smoothed."""
    return ["Margin", [tag, tag, tag]]


Layout = dict[str, dict[str, list[Any]]]
BY_LENGTH = "by context length/nats per source token"
FIRST = ("arm", "seed")
"""What a row of the HParams tab starts with; TensorBoard shows the first five settings, then the metrics."""
SPEED = {"tokens per second": _lines(["throughput/tokens_per_s"])}


class Dashboard(Callback):
    """Write the layout at the start of a fit; its picture and hyperparameters with final metrics at its end.

    Args:
        config_yaml: The configuration of the run.
        values: Its values, ${...} in it followed.
    """

    def __init__(self, config_yaml: str, values: Mapping[str, Any]) -> None:
        self.config_yaml, self.values = config_yaml, values

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay out the Custom Scalars tab."""
        scores_answers = trainer.datamodule.scores_answers_only  # type: ignore[attr-defined]
        layout = _task_layout(trainer) if scores_answers else _text_layout(trainer)
        if any(getattr(writer, "goes_on", False) for writer in _writers(trainer)):
            return  # all this stands in the event file already
        for writer in _writers(trainer):
            writer.add_custom_scalars(layout)
        log_text(trainer, "config", f"```yaml\n{self.config_yaml}\n```")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of the HParams tab."""
        self._draw(trainer)
        metrics = {f"final/{k}": float(v) for k, v in trainer.callback_metrics.items() if k.split("/")[-1] == "val"}
        if not metrics:
            return
        for writer in _writers(trainer):
            # Straight to the run's own event file: add_hparams would open a second run named after the time.
            for summary in hparams_summary(self._shown(log_folder(trainer)), metrics):
                writer._get_file_writer().add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value, trainer.global_step)
            writer.flush()

    def _shown(self, folder: Path | None) -> dict[str, str | int | float]:
        """What two runs are compared by: the arm and the seed first, then how model and data were made."""
        flat = flatten(self.values)
        card = json.loads((folder / ARM).read_text(encoding="utf-8")) if folder and (folder / ARM).is_file() else {}
        first = dict(zip(FIRST, (card.get("arm"), flat.get("seed_everything", card.get("seed"))), strict=True))
        chosen = {
            key: value
            for key, value in flat.items()
            if key.split(".")[0] in ("model", "data", "seeds")
            or key in ("seed_everything", "trainer.max_steps", "trainer.precision")
        }
        return {key: value for key, value in first.items() if value is not None} | chosen

    def _draw(self, trainer: Trainer) -> None:
        lines = [line for logger in trainer.loggers if isinstance(logger, JsonlLogger) for line in logger.read()]
        folder = log_folder(trainer)
        answers = trainer.datamodule.scores_answers_only  # type: ignore[attr-defined]
        has_losses = any(tag in line for line in lines for tag in ("loss/train", "loss/val"))
        if has_losses and folder is not None and trainer.is_global_zero and not answers:
            ablations = [c for c in trainer.callbacks if isinstance(c, PositionAblation)]  # type: ignore[attr-defined]
            cells = ablations[0].cells if ablations else []
            if _writers(trainer):
                write_lengths(folder, cells)
            figure = run_figure(lines, cells)
            log_figure(trainer, "run", figure)
            save_figure(figure, folder / "run.png")


def write_lengths(folder: Path, cells: Sequence[Cell]) -> None:
    """Write losses by context length into a folder a reading; those of an earlier end of the run go."""
    for positions in dict.fromkeys(cell.positions for cell in cells):
        target = folder / f"positions {positions}"
        for old in target.glob(PATTERN):
            old.unlink()
        events = EventFile(target)
        for cell in cells:
            if cell.positions == positions:
                value = Summary.Value(tag=BY_LENGTH, simple_value=cell.nats)
                events.add_event(Event(step=cell.length, summary=Summary(value=[value])))
        events.close()


def _text_layout(trainer: Trainer) -> Layout:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    kinds = ["train", *("bigram" for c in callbacks if isinstance(c, BigramBaseline) and c.enabled)]
    by_length = {}
    if any(isinstance(c, PositionAblation) for c in callbacks):
        title = "kept and dropped, nats per source token; step: context length in tokens"
        by_length = {"positions at meta-tokens": {title: _points(BY_LENGTH)}}
    return {
        "losses": {
            "validation, nats per source token": _points("loss/val"),
            "validation, bits per byte": _points("bits_per_byte/val"),
            "training, nats per source token": _lines(f"loss/{kind}" for kind in kinds),
        },
        **by_length,
        "speed": SPEED,
    }


def _task_layout(trainer: Trainer) -> Layout:
    phases = len(trainer.datamodule.schedule.phases)  # type: ignore[attr-defined]
    curriculum = {"phase": _points("curriculum/phase"), "accuracy in the phase": _points("curriculum/accuracy")}
    return {
        "answers": {
            "held-out prompts answered exactly": _points("accuracy/exact/val"),
            "held-out answer tokens that are right": _points("accuracy/token/val"),
            "validation, nats per answer token": _points("loss/val"),
            "training, nats per answer token": _lines(["loss/train"]),
        },
        **({"curriculum": curriculum} if phases > 1 else {}),
        "speed": SPEED,
    }


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float]:
    """``{"model": {"bias": False}}`` -> ``{"model.bias": "False"}``; only what the HParams tab can show.

    Flags and lists become text: TensorBoard would draw a flag as 0 or 1.
    """
    flat: dict[str, str | int | float] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = value
        elif value is not None:
            flat[name] = str(value)
    return flat


def _writers(trainer: Trainer) -> list[Any]:
    return [
        logger.experiment
        for logger in trainer.loggers
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero
    ]
