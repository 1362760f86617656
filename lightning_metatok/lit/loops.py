"""Lightning's training loops with a step border: the one place where nothing is half done.

Lightning saves from hooks that stand before metrics are written, or inside validation, and counts a step twice when it
goes on from there. Checkpoints of this project are made at the border, and a run that goes on starts there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from lightning_metatok.lit.random_state import random_state, set_random_state


class BorderedEpochLoop(_TrainingEpochLoop):
    """Calls `on_step_border(trainer)` of callbacks that have it, after an optimiser step and all that belongs to it."""

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate if it is time, without a trace in the random numbers of training; then the border."""
        if self._skip_next_val:  # resumed at a border behind a validation: no step was made since
            self._skip_next_val = False
            return
        with undisturbed():
            super().on_advance_end(data_fetcher)
        if not self._should_accumulate():
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if (at_border := getattr(callback, "on_step_border", None)) is not None:
                    at_border(self.trainer)


class BorderedFitLoop(_FitLoop):
    """A run that goes on from its very last step still does what stands at the end of every run."""

    @property
    def skip(self) -> bool:
        """Whether there is nothing to do, not even an end."""
        return super().skip and not self.restarting


def install(trainer: lightning.Trainer) -> None:
    """Give the trainer these loops, and take Lightning's own signal handlers, which save in the middle of a step."""
    old = trainer.fit_loop
    trainer.fit_loop = BorderedFitLoop(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
    epochs = BorderedEpochLoop(trainer, min_steps=old.epoch_loop.min_steps, max_steps=old.epoch_loop.max_steps)
    trainer.fit_loop.epoch_loop = epochs
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def stand_at(trainer: lightning.Trainer, step: int) -> None:
    """Let verbs that only read log at the `step` of their checkpoint: Lightning takes the weights alone from it."""
    epochs = trainer.fit_loop.epoch_loop
    epochs.automatic_optimization.optim_progress.optimizer.step.total.completed = step
    epochs._batches_that_stepped = step


@contextmanager
def undisturbed() -> Iterator[None]:
    """Random numbers drawn inside leave no trace outside."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
