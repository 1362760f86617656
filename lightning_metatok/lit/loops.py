"""Lightning's training loops with a step border: the one place where nothing is half done.

Lightning saves from hooks that stand before metrics are written, or inside validation, and counts a step twice when it
goes on from there. Checkpoints of this project are made at the border, and a run that goes on starts there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import lightning
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from lightning_metatok import signals
from lightning_metatok.lit import optimizers
from lightning_metatok.lit.checkpoints.random_state import random_state, set_random_state


class BorderedEpochLoop(_TrainingEpochLoop):
    """Calls callbacks at the border, after an optimiser step and all that belongs to it, and where a signal stops that.

    `on_step_border(trainer)` and `on_interrupted_validation(trainer, checkpoint)`, of callbacks that have them.
    """

    owes_validation = False
    """Whether the validation that was due behind the last step is still to be made."""

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate if it is time, without a trace in the random numbers of training; then the border.

        Raises:
            Asked: a signal came in the validation, and what stood before it is saved.
        """
        if self._skip_next_val:  # resumed at a border behind a validation, or before one: no step was made since
            self._skip_next_val = False
            if not self.owes_validation:
                return
            self.val_loop.restarting = False  # it begins anew
        trainer = self.trainer
        due = self._should_check_val_fx(data_fetcher) and not self._should_accumulate()
        if due:
            optimizers.average(trainer.optimizers)
        before = self._before_validation() if due and trainer.world_size == 1 else {}
        try:
            with undisturbed() if due else nullcontext():
                super().on_advance_end(data_fetcher)
        except signals.Asked:
            trainer.training = True
            self._tell("on_interrupted_validation", before)
            raise
        self.owes_validation = False
        if not self._should_accumulate():
            self._tell("on_step_border")

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        """A budget ends where it ends, between two validations too: the model of its last step is validated."""
        if super()._should_check_val_fx(data_fetcher):
            return True
        budget = getattr(self.trainer, "budget", None)
        ends = budget is not None and budget.given and self.global_step == self.max_steps
        return bool(ends) and not self._should_accumulate() and self._should_check_val_epoch()

    def _before_validation(self) -> dict[str, Any]:
        """A checkpoint of now, if one may be asked for before the validation ends; weights are shared, not copied."""
        self.owes_validation = True
        checkpoint = self.trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        # Counters go on while the validation runs.
        return {**checkpoint, **{name: deepcopy(checkpoint[name]) for name in ("loops", "callbacks")}}

    def _tell(self, event: str, *given: Any) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if (told := getattr(callback, event, None)) is not None:
                told(self.trainer, *given)

    def on_save_checkpoint(self) -> dict[str, Any]:
        """What Lightning keeps, and whether a validation is owed."""
        return {**super().on_save_checkpoint(), "owes_validation": self.owes_validation}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Take that up."""
        super().on_load_checkpoint(state_dict)
        self.owes_validation = state_dict.get("owes_validation", False)


class BorderedFitLoop(_FitLoop):
    """A run that goes on from its very last step still does what stands at the end of every run."""

    @property
    def skip(self) -> bool:
        """Whether there is nothing to do, not even an end."""
        return super().skip and not self.restarting

    @property
    def done(self) -> bool:
        """Whether the last step is made, and the validation behind it."""
        return super().done and not self.epoch_loop.owes_validation  # type: ignore[attr-defined]


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
