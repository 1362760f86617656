"""A logger with an argument that is a mapping, and a callback that knows a secret."""

import os
import signal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger


class Tagged(CSVLogger):
    """Takes tags."""

    def __init__(self, name: str = "x", tags: dict[str, int] | None = None) -> None:
        super().__init__(".", name=name)
        self.tags = tags


class Keyed(Callback):
    """Takes the key to something, and asks its own run to stop after a step."""

    def __init__(self, key: str = "", stop_after: int | None = None) -> None:
        self.key, self.stop_after = key, stop_after

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Send the signal."""
        if trainer.global_step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
