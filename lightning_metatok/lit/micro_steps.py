"""Which micro-batch of a run is which: they are numbered over its whole life, resumed or not."""

import lightning


def micro_step(trainer: lightning.Trainer, batch_idx: int) -> int:
    """Batches before this one, since the first step of all, resumed or not.

    Ask when a training batch starts: the optimiser may have stepped when it ends.
    """
    return next_micro_step(trainer) + batch_idx % trainer.accumulate_grad_batches


def next_micro_step(trainer: lightning.Trainer) -> int:
    """Batches behind the optimiser steps that are made: the number of the one that training data begin with now."""
    return trainer.global_step * trainer.accumulate_grad_batches
