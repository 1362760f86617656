"""TensorBoard's first answers without typing: charts, and hyperparameters with the final metrics.

TensorBoard smooths lines and not margins, so what is logged seldom is a margin without width.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams as hparams_summary

from lightning_metatok.lit.callbacks.arm_card import ARM
from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.figures import run_figure
from lightning_metatok.lit.callbacks.offers import Charts, Layout, Panels, chart, offered, points
from lightning_metatok.lit.data.protocol import data_of, task_of
from lightning_metatok.lit.run.loggers import JsonlLogger, log_folder, log_text, show_figure

SPEED = {"tokens per second": chart(["throughput/tokens_per_s"])}
FIRST = ("arm", "seed")
"""What a row of the HParams tab starts with; TensorBoard shows the first five settings, then the metrics."""


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
        scores_answers = data_of(trainer).scores_answers_only
        layout = _task_layout(trainer) if scores_answers else _text_layout(trainer)
        for callback in offered(trainer, Charts):
            layout |= callback.charts()
        layout |= {"speed": SPEED}
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
            if key.split(".")[0] in ("model", "data", "seed_everything")
            or (key.startswith("seed.") and value != "None")
            or key in ("trainer.max_steps", "trainer.precision")
        }
        return {key: value for key, value in first.items() if value is not None} | chosen

    def _draw(self, trainer: Trainer) -> None:
        lines = [line for logger in trainer.loggers if isinstance(logger, JsonlLogger) for line in logger.read()]
        folder = log_folder(trainer)
        answers = data_of(trainer).scores_answers_only
        has_losses = any(tag in line for line in lines for tag in ("loss/train", "loss/val"))
        if has_losses and folder is not None and trainer.is_global_zero and not answers:
            figure = run_figure(lines, [panel for callback in offered(trainer, Panels) for panel in callback.panels()])
            show_figure(trainer, "run", figure, folder / "run.png")


def _text_layout(trainer: Trainer) -> Layout:
    has_bigram = any(isinstance(c, BigramBaseline) and c.enabled for c in trainer.callbacks)  # type: ignore[attr-defined]
    return {
        "losses": {
            "validation, nats per source token": points("loss/val"),
            "validation, bits per byte": points("bits_per_byte/val"),
            "training, nats per source token": chart(["loss/train", *["loss/bigram"] * has_bigram]),
        },
    }


def _task_layout(trainer: Trainer) -> Layout:
    phases = len(task_of(trainer).schedule.phases)
    curriculum = {"phase": points("curriculum/phase"), "accuracy in the phase": points("curriculum/accuracy")}
    return {
        "answers": {
            "held-out prompts answered exactly": points("accuracy/exact/val"),
            "held-out answer tokens that are right": points("accuracy/token/val"),
            "validation, nats per answer token": points("loss/val"),
            "training, nats per answer token": chart(["loss/train"]),
        },
        **({"curriculum": curriculum} if phases > 1 else {}),
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
