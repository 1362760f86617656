"""Pairs of prompts that differ in what stands in the target segment, and so in the answer, and in nothing else.

    clean       L0 M a4 a7 M  L9 M a1 a5 M  ? L9 2   a5
    corrupted   L0 M a4 a7 M  L9 M a3 a0 M  ? L9 2   a0        the same places, the same marks, another list L9

What a model holds at some place of one prompt can so be put at the same place of the other, to see whether the answer
follows (Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042). Both are prompts that the task
itself could have made, and both belong to the split.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.examples import ANSWER, BODY, CLOSES_TARGET, META, OPENS_TARGET, Examples, concatenate
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.drawing import TaskSplit
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.task import Task

WINDOW, WINDOWS = 256, 64
"""Prompts that are drawn at once, and how often at most."""


def in_target(examples: Examples) -> NDArray[np.bool_]:
    """Whether each token stands in a segment that the answer depends on, marks left out; a segment without a start
    begins with its prompt. bool [tokens]."""
    opens, closes = ((examples.flags & flag) > 0 for flag in (OPENS_TARGET, CLOSES_TARGET))
    rows, n = examples.rows(), len(examples)
    without_start = np.bincount(rows, weights=closes, minlength=n) - np.bincount(rows, weights=opens, minlength=n)
    depth = np.cumsum(opens.astype(np.int64) - closes)
    before = np.concatenate([[0], depth])[examples.offsets[:-1]]
    depth = depth - before[rows] + np.maximum(without_start, 0).astype(np.int64)[rows]
    return (depth > 0) & ((examples.flags & META) == 0) & ((examples.flags & BODY) > 0)


def why_no_pairs(task: Task) -> str | None:
    """Why a task gives no pairs, in one line; None: it does."""
    if not task.content_draws:
        return f"data.task={task.name} has no segment that could hold something else; expected a task with segments"
    return None


def make_pairs(
    task: Task,
    n: int,
    seed: int,
    split: TaskSplit = "test",
) -> tuple[Examples, Examples]:
    """Return `n` clean prompts and, in the same order, their corrupted partners; of any task with `content_draws`.

    Raises:
        UserError: the task gives no pairs, or too few.
    """
    if (reason := why_no_pairs(task)) is not None:
        raise UserError(reason)
    clean, corrupted, found = [], [], 0
    for window in range(WINDOWS):
        one, other = _window(task, window * WINDOW + np.arange(WINDOW), seed, split)
        clean.append(one)
        corrupted.append(other)
        found += len(one)
        if found >= n:
            first_n = np.arange(n)
            return concatenate(clean).take(first_n), concatenate(corrupted).take(first_n)
    raise UserError(
        f"data.task={task.name}: {found} pairs of prompts of one shape among {WINDOWS * WINDOW}; expected {n}, so "
        "fewer examples, or words of one token each (data.task_options.rendering=symbols)"
    )


def _window(task: Task, index_n: NDArray[np.int64], seed: int, split: TaskSplit) -> tuple[Examples, Examples]:
    sizes_n = task.sizes(Draws(seed, split, index_n))
    drawn = [task.marked(Draws(seed, split, index_n, anew=anew), sizes_n, seed) for anew in ((), task.content_draws)]
    good = task.fits(drawn[0]) & (drawn[0].lengths == drawn[1].lengths)
    for one in drawn:
        good &= task.of_split(one, split)
    one, other = (part.take(np.flatnonzero(good)) for part in drawn)
    if not len(one):
        return one, other
    differs, target, answers = one.tokens != other.tokens, in_target(one), (one.flags & ANSWER) > 0
    asks = (one.flags & (BODY | META)) == 0
    shaped = one.flags == other.flags
    same_question = shaped & ~(differs & asks & ~answers)
    rows, size = one.rows(), len(one)
    alike = np.bincount(rows, weights=same_question, minlength=size) == one.lengths
    other_answer = np.bincount(rows, weights=differs & answers, minlength=size) > 0
    chosen = np.flatnonzero(alike & other_answer)
    mixed = replace(other, tokens=np.where(target | answers, other.tokens, one.tokens))
    return one.take(chosen), mixed.take(chosen)
