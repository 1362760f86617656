"""Sets of examples of a given size, made once and kept in the cache, read through memory maps.

<cache>/examples-91bc.../   tokens.npy flags.npy offsets.npy slice-*.npy      see `Examples.save`
"""

from collections.abc import Callable
from pathlib import Path

from lightning_metatok.data.cache import fingerprint, prepared
from lightning_metatok.data.examples import Examples, concatenate
from lightning_metatok.tasks.drawing import TaskSplit
from lightning_metatok.tasks.task import Task

CHUNK = 4096
"""Examples made at once: large enough that NumPy's cost of a call does not count."""


def prepared_examples(
    task: Task,
    n: int,
    seed: int,
    split: TaskSplit,
    cache: Path,
    *,
    start: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Return the folder of the examples number start ... start + n - 1 of `task`, for `Examples.load`.

    Args:
        task: what they are examples of; its options and `Task.describe` are what the folder is found again by.
        n: how many. seed, split, start: as in `Task.examples`.
        cache: folder of prepared data.
        progress: called with (task's name, examples made, n) after every few thousand.

    Raises:
        UserError: what `Task.examples` raises, or a cache folder that is full or cannot be written.
    """
    inputs = {
        "kind": "examples, how far back their answers stand",
        **task.describe(),
        "seed": seed,
        "split": split,
        "start": start,
        "n": n,
    }

    def build(folder: Path) -> None:
        parts: list[Examples] = []
        for done in range(0, n, CHUNK):
            if progress is not None:
                progress(task.name, done, n)
            parts.append(task.examples(min(CHUNK, n - done), seed, split, start + done))
        concatenate(parts).save(folder)

    return prepared(cache, f"examples-{fingerprint(inputs)}", build)
