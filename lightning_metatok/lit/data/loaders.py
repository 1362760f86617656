"""Batches of examples for the Trainer: without end in training, each example once in evaluation.

step     0   1   2  ...  15 | 16  ...            a worker makes a window of 16 steps at a time, as NumPy arrays,
window   0                  | 1                  and the batches are cut and filled up here
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_metatok.data import Batch, StepSampler
from lightning_metatok.data.examples import Examples
from lightning_metatok.lit.data.workers import make_loader
from lightning_metatok.tasks.curriculum import Schedule
from lightning_metatok.tasks.stream import STEPS, Counts, Window, Windows


class StepLoader:
    """The batches of a rank from micro-step `first` on, without end; when a phase begins, the workers start anew."""

    def __init__(
        self,
        windows: list[Windows],
        schedule: Schedule,
        first: int | Callable[[], int],
        every: int,
        num_workers: int,
        counts: dict[int, Counts],
    ) -> None:
        """Take what the batches are made of.

        Args:
            windows: of each phase. schedule: of the phases. first: a micro-step, or a function that is asked for it
                whenever batches begin. every: micro-steps of an optimiser step. num_workers: processes.
            counts: told what batches hold.
        """
        self.windows, self.schedule, self.first, self.every = windows, schedule, first, every
        self.num_workers, self.counts = num_workers, counts

    def __iter__(self) -> Iterator[Batch]:
        step, phase = self.first() if callable(self.first) else self.first, -1
        window: Window | None = None
        while True:
            number, row = divmod(step, STEPS)
            if (now := self.schedule.phase_at(step // self.every)) != phase:
                phase, window = now, None
                made = self._made(phase, number)
            if window is None or row == 0:
                window = next(made)
            for old in [known for known in self.counts if known < step - STEPS]:
                del self.counts[old]
            self.counts[step] = window.counts[row]
            size = self.windows[phase].batch_size
            yield window.examples.batch(np.arange(row * size, (row + 1) * size))
            step += 1

    def _made(self, phase: int, first: int) -> Iterator[Window]:
        return iter(
            make_loader(
                WindowDataset(self.windows[phase]),
                self.num_workers,
                sampler=StepSampler(first),
                sends_tensors=False,
                collate_fn=_as_it_is,
            )
        )


class WindowDataset(Dataset[Window]):
    """`dataset[w]` is window w."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __getitem__(self, number: int) -> Window:
        return self.windows[number]


class OnceEach(Dataset[Batch]):
    """Every example once, short ones first; a rank has every `world_size`-th.

    Left out are examples, less than `world_size` of them, that do not reach every rank.
    """

    def __init__(self, examples: Examples, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.examples, self.batch_size = examples, batch_size
        order = np.argsort(examples.lengths, kind="stable")
        self.chosen = order[: len(order) // world_size * world_size][rank::world_size]

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch_size)

    def __getitem__(self, i: int) -> Batch:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.examples.batch(self.chosen[i * self.batch_size : (i + 1) * self.batch_size])


def once_each(dataset: OnceEach) -> DataLoader:
    """Return the batches of `dataset`, made in this process: they are cut from what lies in memory."""
    return DataLoader(
        dataset,
        batch_size=None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else starting an iterator would draw from the global one
    )


def _as_it_is(window: Any) -> Any:
    """Windows are NumPy arrays; DataLoader would make tensors of them, which cost a file descriptor each to send."""
    return window
