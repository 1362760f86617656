"""Held-out prompts of a task: which examples are in which set, and each set made once.

    set           first example        where it lies
    test          0                    on the disk, shared by all runs on this machine
    validation    2^32                 the same
    evaluation    0                    in memory: of the target at some length
    phases        2^33 + phase * 2^40  in memory: of a phase, which may end with them

No example is in two of them, but that evaluation at the trained length asks test prompts.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning_metatok.data.examples import Examples
from lightning_metatok.data.preparation import LOST
from lightning_metatok.signals import heed
from lightning_metatok.tasks import Task
from lightning_metatok.tasks.sets import prepared_examples

HELD_OUT_SEED = 0
"""Held-out prompts do not follow `data.seed`, so that runs of several seeds answer the same questions."""
VALIDATION, OF_PHASES, APART = 1 << 32, 2 << 32, 1 << 40
"""First example of the validation prompts and of those that end a phase (test prompts start at 0), and how far apart
the training examples of two phases start: no example is in two sets."""


class HeldOut:
    """The sets of a run; what is asked for again is what was made first."""

    def __init__(self, cache: Path) -> None:
        """`cache`: folder that sets on the disk lie in."""
        self.cache = cache
        self._made: dict[tuple[Any, ...], Examples] = {}

    def validation(self, target: Task, n: int) -> Examples:
        """Return `n` validation prompts of the target, with one question each."""
        return self._once(("validation",), lambda: self._on_disk(target.asking_once(), n, VALIDATION))

    def test(self, target: Task, n: int) -> Examples:
        """Return `n` test prompts of the target, with one question each."""
        return self._once(("test",), lambda: self._on_disk(target.asking_once(), n, 0))

    def evaluation(self, task: Task, multiple: float, n: int) -> Examples:
        """Return `n` prompts of `task`, the target at `multiple` times its length."""
        return self._once(("evaluation", multiple, n), lambda: task.examples(n, HELD_OUT_SEED, "test"))

    def phase(self, task: Task, phase: int, n: int) -> Examples:
        """Return `n` prompts of the task of a phase, with one question each."""
        start = OF_PHASES + phase * APART
        return self._once(("phase", phase, n), lambda: task.asking_once().examples(n, HELD_OUT_SEED, "test", start))

    def _on_disk(self, task: Task, n: int, start: int) -> Examples:
        """Made once on this machine and read through memory maps."""
        with counting_bar() as progress:
            folder = prepared_examples(task, n, HELD_OUT_SEED, "test", self.cache, start=start, progress=progress)
        return Examples.load(folder)

    def _once(self, key: tuple[Any, ...], make: Callable[[], Examples]) -> Examples:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@contextlib.contextmanager
def counting_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function (what, done, total) that heeds signals, and draws a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: heed(LOST)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            heed(LOST)
            if what not in tasks:
                tasks[what] = bar.add_task(f"examples of {what}", total=total)
            bar.update(tasks[what], completed=done)

        yield show
