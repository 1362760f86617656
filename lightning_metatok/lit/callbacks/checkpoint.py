"""Checkpoints of a run, all at step borders: the newest ones, the best by validation loss, and one on a signal.

    ... batch  optimiser step  its metrics  [validation, its metrics]  | BORDER |  batch ...

At a border nothing is half done: no accumulated gradient, no running validation, no metric that waits to be written. A
signal that comes earlier waits for the border, at most one optimiser step. One that comes in a validation ends it
between two batches: the checkpoint is that of before it, and the run that goes on validates first.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_metatok import signals
from lightning_metatok.lit.checkpoints.folder import link_last, prune
from lightning_metatok.lit.checkpoints.io import add_loss
from lightning_metatok.lit.run.ranks import rank
from lightning_metatok.lit.run.stopping import LOST_IN_VALIDATION, heed, of_all_ranks


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

    def on_validation_batch_start(self, trainer: Trainer, *args: object) -> None:
        """Let no signal wait for the end of a long validation.

        Raises:
            Asked: one came.
        """
        if trainer.state.fn == "fit":
            heed(trainer, LOST_IN_VALIDATION)

    def on_interrupted_validation(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Save what stood before the validation, unless the run began there."""
        if trainer.global_step != self._saved_at and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = self._path(trainer.global_step)
            trainer.strategy.save_checkpoint(checkpoint, path, storage_options={"loss": None})
            self._keep(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The border after this validation is one to save at."""
        self._validated = not trainer.sanity_checking

    def on_step_border(self, trainer: Trainer) -> None:
        """Save if it is time.

        Raises:
            Stopped: a signal came, to whichever rank, and the checkpoint is complete.
        """
        step, number = trainer.global_step, of_all_ranks(trainer, signals.received())
        due = self._validated if self.every_n_steps is None else step % self.every_n_steps == 0
        is_last = step == trainer.max_steps or trainer.should_stop
        if due or number or is_last:
            self._save(trainer, step)
        self._validated = False
        if number and not (is_last and number == signal.SIGUSR1):  # a run that is done must not come back
            stop(number, step, requeues=trainer.is_global_zero)

    def _save(self, trainer: Trainer, step: int) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self._path(step)
        loss = float(trainer.callback_metrics["loss/val"]) if self._validated else None
        if step != self._saved_at:
            trainer.save_checkpoint(path, storage_options={"loss": loss})
        elif loss is not None and trainer.is_global_zero and path.with_suffix(".json").exists():
            add_loss(path, loss)  # the run began with the validation that this one owed
        else:
            return
        self._saved_at = step
        if trainer.is_global_zero:  # the new one is complete: only now may others go
            self._keep(path)

    def _path(self, step: int) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath) / f"step-{step}.ckpt"

    def _keep(self, path: Path) -> None:
        link_last(path)
        prune(path.parent, keep_last=self.keep_last, keep_best=self.keep_best)


def stop(
    number: int,
    step: int,
    *,
    lost: str = "",
    requeues: bool = True,
) -> NoReturn:
    """End the run as the signal `number` asks, at `step`; its job comes back on SIGUSR1 and where it is preempted.

    `lost` says what is done again.

    Raises:
        Stopped: always.
    """
    if requeues and (number == signal.SIGUSR1 or (number == signal.SIGTERM and preempted())):
        requeue()
    raise signals.Stopped(number, step, lost)


@contextmanager
def stops_at(step: Callable[[], int]) -> Iterator[None]:
    """End the run at `step()` where a signal is heeded inside between two units of work that are no steps.

    Raises:
        Stopped: one was.
    """
    try:
        yield
    except signals.Asked as asked:
        stop(asked.number, step(), lost=asked.lost, requeues=rank() == 0)


def preempted() -> bool:
    """Whether SLURM takes this job away for another one.

    It sends SIGTERM then, as for `scancel`, and requeues the job only if it has to kill it: one that ends by itself
    within its grace time has failed.
    """
    found = re.search(r"\bPreemptTime=(\S+)", _scontrol("show", "job", "--oneliner") or "")
    return found is not None and found[1] not in ("None", "N/A")


def requeue() -> None:
    """Put this SLURM job back into the queue; nothing outside SLURM."""
    _scontrol("requeue", says=True)


def _scontrol(*command: str, says: bool = False) -> str | None:
    """What `scontrol` answers about this job; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    program = shutil.which("scontrol")
    if job is None or program is None:
        return None
    done = subprocess.run([program, *command, job], capture_output=True, text=True, check=False)
    if says:
        said = f": {done.stderr.strip()}" if done.returncode else ""
        print(f"scontrol {command[0]} {job} {'failed' if done.returncode else 'done'}{said}", file=sys.stderr)
    return done.stdout
