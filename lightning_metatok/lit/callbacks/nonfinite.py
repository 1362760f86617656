"""A loss or a gradient that is no finite number stops the run, before the weights take it; what led to it is kept.

<run>/nonfinite/step-13-rank-0.pt    weights, batches and random numbers of that step, for `lightning-metatok replay`
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_metatok.data import Batch
from lightning_metatok.errors import NonFiniteError, UserError
from lightning_metatok.lit.checkpoints.io import write_file
from lightning_metatok.lit.checkpoints.random_state import random_state
from lightning_metatok.lit.sharded import whole

FOLDER = "nonfinite"


class NonFinite(Callback):
    """Watch the loss of every micro-batch and the norm of every gradient; one wait for the device a step.

    Under a gradient scaler (16-mixed) only losses count: it meets infinite gradients by design, and leaves them out.

    Args:
        action: stop: end the run with exit code 3. skip: leave the weights as they were, count, and go on.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        if action not in ("stop", "skip"):
            raise UserError(f"nonfinite.action={action}: expected stop or skip")
        self.action = action
        self.skipped = 0
        self._inputs: list[tuple[Batch, int | None, Tensor | None]] = []
        self._losses: list[Tensor] = []

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Keep what this micro-batch starts from."""
        memory_BMD = getattr(pl_module.model, "carried_BMD", None)
        self._inputs.append((batch, pl_module.dropout_seed(batch_idx), memory_BMD))  # type: ignore[operator]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss, on its device."""
        self._losses.append(pl_module.loss_of_micro_batch)  # type: ignore[arg-type]

    def on_gradient_norm(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        optimizer: torch.optim.Optimizer,
        norm: Tensor,
    ) -> None:
        """Look, before the optimiser steps.

        Raises:
            NonFiniteError: something is not finite, on whichever rank, and `action` is stop.
        """
        inputs, losses, self._inputs, self._losses = self._inputs, self._losses, [], []
        values = torch.stack([*losses, norm.detach().to(losses[0].dtype)]) if losses else norm.detach()[None]
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        finite = bool(torch.isfinite(values[:-1] if scaled else values).all())
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            return
        step, (*of_losses, of_norm) = trainer.global_step + 1, values.tolist()
        what = f"step {step}: loss {' '.join(f'{loss:g}' for loss in of_losses)}, gradient norm {of_norm:g}"
        if self.action == "skip":
            self.skipped += 1
            optimizer.zero_grad(set_to_none=True)  # without gradients it changes neither weights nor its own state
            if trainer.is_global_zero:
                print(f"lightning-metatok: warning: {what}: skipped, {self.skipped} so far", file=sys.stderr)
            return
        path = self._save(trainer, pl_module, step, inputs, of_losses, of_norm)
        raise NonFiniteError(
            f"{what}; `lightning-metatok replay {path.parent.parent}` looks into it, --nonfinite.action=skip goes on"
        )

    def _save(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        step: int,
        inputs: list[tuple[Batch, int | None, Tensor | None]],
        losses: list[float],
        norm: float,
    ) -> Path:
        path = Path(trainer.default_root_dir) / FOLDER / f"step-{step}-rank-{trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "step": step,
            "losses": losses,
            "norm": norm,
            "batches": [asdict(batch) for batch, _, _ in inputs],
            "seeds": [seed for _, seed, _ in inputs],
            "memories": [memory_BMD for _, _, memory_BMD in inputs],
            "random": random_state(),
            "state_dict": {name: whole(weight) for name, weight in pl_module.state_dict().items()},
            "hyper_parameters": dict(pl_module.hparams),
            "scores_answers_only": pl_module.scores_answers_only,
            "separate_documents": pl_module.separate_documents,
            "precision": str(trainer.precision),
            "device": pl_module.device.type,
        }
        write_file(path, lambda target: torch.save(record, target))
        return path

    def state_dict(self) -> dict[str, Any]:
        """A run that goes on goes on counting."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count of the checkpoint."""
        self.skipped = state_dict["skipped"]
