"""Checkpoints of a run, all at step borders: the newest ones, the best by validation loss, and one on a signal.

    ... batch  optimiser step  its metrics  [validation, its metrics]  | BORDER |  batch ...

At a border nothing is half done: no accumulated gradient, no running validation, no metric that waits to be written. A
signal that comes earlier waits for the border: at most one optimiser step, and one validation if one is due.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_metatok import signals
from lightning_metatok.lit.checkpoint_io import link_last, prune


class RunCheckpoint(Checkpoint):
    """Save after every validation, at the end, and when a signal asks the run to stop; then stop.

    Args:
        keep_best: Number of best checkpoints to keep, by validation loss; -1 for all.
        every_n_steps: Save every so many optimiser steps instead of after every validation.
        keep_last: Number of newest checkpoints to keep.
    """

    def __init__(self, keep_best: int = 1, every_n_steps: int | None = None, keep_last: int = 2) -> None:
        self.keep_best, self.keep_last, self.every_n_steps = keep_best, keep_last, every_n_steps
        self.dirpath: str | None = None
        self._validated = False
        self._saved_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a resumed run starts from is saved already."""
        self._saved_at = trainer.global_step
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The border after this validation is one to save at."""
        self._validated = not trainer.sanity_checking

    def on_step_border(self, trainer: Trainer) -> None:
        """Save if it is time.

        Raises:
            Stopped: a signal came, to whichever rank, and the checkpoint is complete.
        """
        step, number = trainer.global_step, _of_all_ranks(trainer, signals.received())
        due = self._validated if self.every_n_steps is None else step % self.every_n_steps == 0
        if due or number or step == trainer.max_steps:
            self._save(trainer, step)
        self._validated = False
        if number:
            stop(number, step, requeues=trainer.is_global_zero)

    def _save(self, trainer: Trainer, step: int) -> None:
        if step == self._saved_at or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        path = Path(self.dirpath) / f"step-{step}.ckpt"
        loss = float(trainer.callback_metrics["loss/val"]) if self._validated else None
        trainer.save_checkpoint(path, storage_options={"loss": loss})
        self._saved_at = step
        if trainer.is_global_zero:  # the new one is complete: only now may others go
            link_last(path)
            prune(path.parent, keep_last=self.keep_last, keep_best=self.keep_best)


def stop(number: int, step: int, *, requeues: bool = True) -> NoReturn:
    """End the run as the signal `number` asks, at `step`; on SIGUSR1 its job comes back, on others it must not.

    Raises:
        Stopped: always.
    """
    if number == signal.SIGUSR1 and requeues:
        requeue()
    raise signals.Stopped(number, step)


def requeue() -> None:
    """Put this SLURM job back into the queue; nothing outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    command = shutil.which("scontrol")
    if job is None or command is None:
        return
    done = subprocess.run([command, "requeue", job], capture_output=True, text=True, check=False)
    said = f": {done.stderr.strip()}" if done.returncode else ""
    print(f"scontrol requeue {job} {'failed' if done.returncode else 'done'}{said}", file=sys.stderr)


def _of_all_ranks(trainer: Trainer, number: int) -> int:
    """The signal that any rank got; of several SIGTERM, then SIGINT, then SIGUSR1."""
    if trainer.world_size == 1:
        return number
    decide = trainer.strategy.reduce_boolean_decision
    if not decide(bool(number), all=False):
        return 0
    return next(one for one in signals.SIGNALS if decide(number == one, all=False))
