"""Checkpoints of a run: the last one, and the best by validation loss."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Save at every validation end: `last.ckpt`, and the best `keep_best` by validation loss.

    Args:
        keep_best: Number of best checkpoints to keep.
        every_n_steps: Save every so many optimiser steps instead of at every validation end.
    """

    def __init__(self, keep_best: int = 1, every_n_steps: int | None = None) -> None:
        super().__init__(
            monitor="loss/val" if every_n_steps is None else None,
            save_top_k=keep_best if every_n_steps is None else 1,
            save_last=True,
            every_n_train_steps=every_n_steps,
            filename="step-{step}",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; the last one even where it is not among the best, which Lightning leaves out."""
        super().on_validation_end(trainer, pl_module)
        if self._every_n_epochs >= 1 and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
