"""The short lines at the end of `fit` and `test`: what other callbacks have to say, the loss, speed, where to look."""

import os
import shutil
import sys
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.analysis.statistics import wilson_interval
from lightning_metatok.console import printer
from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.offers import Closing, offered
from lightning_metatok.lit.callbacks.throughput import Throughput
from lightning_metatok.lit.data.protocol import data_of, task_of
from lightning_metatok.lit.metrics import bytes_per_target
from lightning_metatok.lit.run.loggers import EventLogger, log_folder


class FinalTable(Callback):
    """Print what the run found and where to look."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print after training."""
        self._print(trainer, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print after `test`."""
        self._print(trainer, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print after `validate`."""
        if trainer.state.fn == "validate":
            self._print(trainer, "val")

    def _print(self, trainer: Trainer, split: str) -> None:
        if not trainer.is_global_zero:
            return
        found = {type(c): c for c in trainer.callbacks}  # type: ignore[attr-defined]
        console = printer()
        bigram, speed = found.get(BigramBaseline), found.get(Throughput)
        for callback in offered(trainer, Closing):
            callback.closing(console)
        loss, bits = (trainer.callback_metrics.get(f"{unit}/{split}") for unit in ("loss", "bits_per_byte"))
        if loss is not None and bits is not None:
            line = f"{split} loss {float(loss):.4f} nats per source token, {float(bits):.4f} bits per byte"
            line += f" (text of {bytes_per_target(float(loss), float(bits)):.3f} bytes a target)"
            if isinstance(bigram, BigramBaseline) and bigram.values:
                against = bigram.values["loss/bigram"]
                verdict = "beaten" if loss < against else "NOT beaten"
                line += f"; a bigram model of the same tokens: {against:.4f} ({verdict})"
            console.print(line, highlight=False, soft_wrap=True)
        if loss is not None and data_of(trainer).config.masked:
            console.print(f"{split} loss {float(loss):.4f} nats per hidden token", highlight=False)
        exact, token = (trainer.callback_metrics.get(f"accuracy/{unit}/{split}") for unit in ("exact", "token"))
        if loss is not None and exact is not None and token is not None:
            data = task_of(trainer)
            n = data.test_examples if split == "test" else data.validation_examples
            low, high = wilson_interval(round(float(exact) * n), n)
            console.print(
                f"{split} {float(exact):.4f} of {n:,} held-out prompts answered exactly, 95 % interval [{low:.4f}, "
                f"{high:.4f}]; {float(token):.4f} of answer tokens, {float(loss):.4f} nats each",
                highlight=False,
                soft_wrap=True,
            )
        if isinstance(speed, Throughput) and speed.tokens:
            console.print(
                f"{speed.tokens_per_s:,.0f} tokens/s in training; {speed.source_tokens:,} source tokens seen"
                f" ({speed.tokens:,} with meta-tokens); precision {trainer.precision}",
                highlight=False,
                soft_wrap=True,
            )
        if (folder := log_folder(trainer)) is not None:
            lines = [f"run folder: {folder}"]
            if trainer.state.fn == "fit" and any(isinstance(one, EventLogger) for one in trainer.loggers):
                lines.append(f"look at it: {tensorboard_command()} --logdir {folder}")
            console.print("\n".join(lines), highlight=False, soft_wrap=True)


def tensorboard_command() -> str:
    """What to type for TensorBoard: its name where the shell finds it, else its place in this virtual environment."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    return os.path.relpath(Path(sys.executable).with_name("tensorboard"))
