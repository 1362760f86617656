"""The loss of an optimiser step is the mean over all its scored tokens, of its micro-batches and ranks alike.

A trainer gives every micro-batch and every rank the same weight, whatever they score. So each gives the SUM of its
losses over one number that all of them share, and once the last is in, the gradient is brought to the mean:

    taken    sum over micro-batches and ranks of loss / (shared x micro-batches x ranks)
    wanted   sum over micro-batches and ranks of loss / scored tokens of all of them

A single micro-batch on a single rank needs none of this: its own mean is the step's.
"""

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class StepMean:
    """Counts the scored tokens of a step; `shared` is about as many as a micro-batch has."""

    def __init__(self) -> None:
        self.scored: int | None = None
        self.shared = 1.0

    @staticmethod
    def is_needed(trainer: Trainer) -> bool:
        """Whether a step has several micro-batches or ranks."""
        return trainer.accumulate_grad_batches * trainer.world_size > 1

    def weighted(self, sum_of_losses: Tensor, scored: int, shared: float) -> Tensor:
        """Return what a micro-batch gives; `shared`, the same on every rank, counts where it opens a step."""
        if self.scored is None:
            self.scored, self.shared = 0, shared
        self.scored += scored
        return sum_of_losses / self.shared

    def bring_to_mean(self, trainer: Trainer, module: nn.Module) -> None:
        """Scale the gradient of a whole step, before anybody looks at it; a loss scale in it stays there."""
        assert self.scored is not None, "a step has a micro-batch"
        counted = torch.tensor(self.scored, device=trainer.strategy.root_device)
        scored = trainer.strategy.reduce(counted, reduce_op="sum")
        self.scored = None
        factor = self.shared * trainer.accumulate_grad_batches * trainer.world_size / scored
        for parameter in module.parameters():
            if (gradient := parameter.grad) is not None:
                piece = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                piece.mul_(factor.to(piece.dtype))
