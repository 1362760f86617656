"""Memory that stays where it is, however many validations a run makes.

Figures, batches and metrics of a validation refer to themselves in circles, which only Python's collector frees. It
looks at old objects only once their number has grown by a quarter, and libraries hold half a million: a run of 200
validations took 90 MB that nobody used any more.
"""

import gc

from lightning.pytorch import Callback, LightningModule, Trainer


class Memory(Callback):
    """Leave what was there before training out of the collector's view, and let it look after each validation."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is there now stays as long as training: a collection then takes milliseconds."""
        gc.collect()
        gc.freeze()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free what this validation and its callbacks left."""
        if not trainer.sanity_checking:
            gc.collect()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is in view again."""
        gc.unfreeze()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Also where training fails."""
        gc.unfreeze()
