"""The held-out prompts or blocks that all probes of a checkpoint look at: the first ones, always the same."""

import numpy as np

from lightning_metatok.data import Batch
from lightning_metatok.data.examples import Examples
from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.task import TaskDataModule
from lightning_metatok.lit.data.text import MetaTokenDataModule

ROWS = 64
"""Prompts of a batch, at most: what is recorded of a layer is many times as large as a batch."""


def held_out(data: TaskDataModule | MetaTokenDataModule, n: int) -> tuple[Examples | None, list[Batch]]:
    """Return `n` held-out prompts at the largest trained length with their flags, in batches; or blocks of text, None.

    Prompts are those that `test` asks at 1x, with one question each.

    Raises:
        UserError: the text has fewer blocks than that, or the task has no such sizes.
    """
    if isinstance(data, TaskDataModule):
        examples = data.evaluation_examples(1.0, n)
        return examples, [examples.batch(np.arange(i, min(i + ROWS, n))) for i in range(0, n, ROWS)]
    batches: list[Batch] = []
    found = 0
    for batch in data.val_dataloader():
        batches.append(_first_rows(batch, n - found))
        found += len(batches[-1].tokens_BT)
        if found == n:
            return None, batches
    raise UserError(
        f"--examples={n}: there are {found} validation blocks; expected at most that, or more data.validation_blocks"
    )


def _first_rows(batch: Batch, n: int) -> Batch:
    return Batch(**{name: value[:n] for name, value in vars(batch).items()})
