"""The examples of a step as a pure function of (seed, step, rank, task): no state to save or to lose.

    sample   g = step * (batch_size * world_size) + i          one number for each example that any rank ever sees
    example  a finite set: permutation(seed, epoch)[g % n]     epoch = g // n
             without end:  the task's example number g         never seen before
    window   the samples of 16 steps, sorted by length without marks and cut into 16 batches, in an order drawn from
             (seed, window): wherever marks stand, and where there are none, a step has the same prompts
    rank     rows rank, rank + world_size, ... of the batch

Batches are therefore of similar lengths and waste little on filling up; two ranks with batch 4 see, together, exactly
what one rank with batch 8 sees at that step; and any worker can make any window. A window is what is made at once,
because most of the cost of a few examples is the cost of calling NumPy at all.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.counter import permutation
from lightning_metatok.data.examples import ANSWER, META, Examples
from lightning_metatok.tasks.drawing import TaskSplit
from lightning_metatok.tasks.task import Task

STEPS = 16
"""Steps in a window."""
ORDER, SHUFFLE = 0x6F72646572, 0x77696E646F77
"""Keep the order of a finite set and that of the batches of a window apart from what examples are drawn with."""


class ExampleSource(ABC):
    """Where samples come from."""

    @abstractmethod
    def samples(self, number_n: IntArray) -> Examples:
        """Return the examples of the samples with these numbers, in order."""


@dataclass
class EndlessSource(ExampleSource):
    """New examples for ever: sample g is example g of `task`, plus `start`."""

    task: Task
    seed: int
    split: TaskSplit = "train"
    start: int = 0

    def samples(self, number_n: IntArray) -> Examples:
        """Make them."""
        return self.task.numbered(self.start + number_n, self.seed, self.split)


@dataclass
class FiniteSource(ExampleSource):
    """The examples in `folder` again and again, each epoch in another order. Small to pickle: a worker maps its own."""

    folder: Path
    seed: int
    _examples: Examples | None = field(default=None, init=False, repr=False)
    _order: tuple[int, IntArray] | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_examples": None, "_order": None}

    @property
    def examples(self) -> Examples:
        """All of them, memory-mapped."""
        if self._examples is None:
            self._examples = Examples.load(self.folder)
        return self._examples

    def samples(self, number_n: IntArray) -> Examples:
        """Look them up."""
        n = len(self.examples)
        epoch_n, place_n = np.divmod(number_n, n)
        chosen_n = np.empty_like(number_n)
        for epoch in np.unique(epoch_n).tolist():
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, permutation(n, self.seed ^ ORDER, epoch)
            here_n = epoch_n == epoch
            chosen_n[here_n] = self._order[1][place_n[here_n]]
        return self.examples.take(chosen_n)


@dataclass(frozen=True)
class Counts:
    """What a step holds on all ranks together; filling up counts nowhere.

    Attributes:
        tokens: tokens, meta-tokens included. source_tokens: tokens without them. scored: tokens of answers, or hidden
            ones, where only these are scored.
    """

    tokens: int
    source_tokens: int
    scored: int = 0


@dataclass(frozen=True)
class Window:
    """The rows of one rank in the steps of a window: NumPy arrays alone, cheap to send from a worker.

    Attributes:
        examples: [STEPS * batch_size], those of the window's first step first.
        counts: of each step, on all ranks.
    """

    examples: Examples
    counts: tuple[Counts, ...]


@dataclass
class Windows:
    """`windows[w]` holds the steps w * STEPS ... w * STEPS + STEPS - 1 of `rank`."""

    source: ExampleSource
    seed: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __getitem__(self, number: int) -> Window:
        step_size = self.batch_size * self.world_size
        size = STEPS * step_size
        drawn = self.source.samples(number * size + np.arange(size))
        lengths, metas, scored = drawn.lengths, count(drawn, META), count(drawn, ANSWER)
        batches = np.argsort(lengths - metas, kind="stable").reshape(STEPS, step_size)
        batches = batches[permutation(STEPS, self.seed ^ SHUFFLE, number)]
        counts = tuple(
            Counts(int(lengths[rows].sum()), int((lengths - metas)[rows].sum()), int(scored[rows].sum()))
            for rows in batches
        )
        return Window(drawn.take(batches[:, self.rank :: self.world_size].reshape(-1)), counts)


def count(examples: Examples, flag: np.uint8) -> IntArray:
    """Return how many tokens of each example have `flag`, [n]."""
    totals = np.concatenate([[0], np.cumsum((examples.flags & flag) > 0)])
    return np.diff(totals[examples.offsets])
