"""TensorBoard's first answers without typing: overlaid charts, and hyperparameters with the final metrics."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams as hparams_summary

from lightning_metatok.lit.callbacks.figures import run_figure
from lightning_metatok.lit.callbacks.offers import Charts, Layout, Panels, chart, offered
from lightning_metatok.lit.data.protocol import data_of
from lightning_metatok.lit.run.loggers import JsonlLogger, log_figure, log_folder, log_text, save_figure

SPEED = {"tokens per second": chart(["throughput/tokens_per_s"])}


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
        layout = _task_layout() if scores_answers else _text_layout()
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
            for summary in hparams_summary(self._shown(), metrics):
                writer._get_file_writer().add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value, trainer.global_step)
            writer.flush()

    def _shown(self) -> dict[str, str | int | float]:
        """What two runs are compared by: how model and data were made, and the seed."""
        return {
            key: value
            for key, value in flatten(self.values).items()
            if key.split(".")[0] in ("model", "data", "seed_everything")
            or key in ("trainer.max_steps", "trainer.precision")
        }

    def _draw(self, trainer: Trainer) -> None:
        lines = [line for logger in trainer.loggers if isinstance(logger, JsonlLogger) for line in logger.read()]
        folder = log_folder(trainer)
        answers = data_of(trainer).scores_answers_only
        has_losses = any(tag in line for line in lines for tag in ("loss/train", "loss/val"))
        if has_losses and folder is not None and trainer.is_global_zero and not answers:
            figure = run_figure(lines, [panel for callback in offered(trainer, Panels) for panel in callback.panels()])
            log_figure(trainer, "run", figure)
            save_figure(figure, folder / "run.png")


def _text_layout() -> Layout:
    return {
        "losses": {
            "nats per source token": chart(f"loss/{name}" for name in ("train", "val", "bigram")),
            "bits per byte": chart(f"bits_per_byte/{name}" for name in ("train", "val", "bigram")),
        },
    }


def _task_layout() -> Layout:
    return {
        "answers": {
            "accuracy of held-out answers": chart(f"accuracy/{kind}/val" for kind in ("token", "exact")),
            "nats per answer token": chart(f"loss/{name}" for name in ("train", "val")),
        },
        "curriculum": {
            "phase": chart(["curriculum/phase"]),
            "accuracy in the phase": chart(["curriculum/accuracy"]),
        },
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
