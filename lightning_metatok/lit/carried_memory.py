"""Memory that goes on from block to block in training, `model.recurrence_options.carry`: forgotten in time, and saved.

step      0    1    2  | 3         data.contiguous: each row reads its own stretch of the text, again and again
memory    m -> w -> w  | m         m: the learned first memory; w: what the row has written
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.protocol import data_of
from lightning_metatok.lit.micro_steps import micro_step


class CarriedMemory(Callback):
    """Forgets at the end of the stretches, and saves the memory of the rows of all ranks."""

    def __init__(self) -> None:
        self._module: Any = None
        self._loaded: torch.Tensor | None = None
        self._next = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up what the checkpoint holds.

        Raises:
            UserError: the run has another number of rows.
        """
        self._module, found = pl_module, self._loaded
        rows = data_of(trainer).batch_size * trainer.world_size
        if found is not None and len(found) != rows:
            raise UserError(
                f"data.batch_size={data_of(trainer).batch_size} on {trainer.world_size} ranks: expected {len(found)} "
                "rows in all, those of the checkpoint, as memory goes on in each (model.recurrence_options.carry)"
            )
        own = None if found is None else found[trainer.global_rank :: trainer.world_size].to(pl_module.device)
        pl_module.model.carried_BMD = own  # type: ignore[union-attr]
        self._loaded = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Note which batch it is: the optimiser steps before its end."""
        self._next = micro_step(trainer, batch_idx) + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Forget where the next batch begins anew."""
        if data_of(trainer).begins_anew(self._next):
            pl_module.model.carried_BMD = None  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Memory [rows, M, D] of all ranks, row b of rank r at b * ranks + r as in batches; None: it begins anew."""
        own_BMD = None if self._module is None else self._module.model.carried_BMD
        if own_BMD is None:
            return {"memory": None}
        trainer = self._module.trainer
        if trainer.world_size == 1:
            return {"memory": own_BMD.cpu()}
        every_WBMD = trainer.strategy.all_gather(own_BMD)
        return {"memory": every_WBMD.transpose(0, 1).flatten(0, 1).cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint holds; where it goes is known when training starts."""
        self._loaded = state_dict["memory"]
