"""Depo: a permutation as pairs in random order, and where one comes after k steps.

    text      saw: plum, fig: saw, plum: fig.⏎Q: 2 after saw⏎A: fig        symbols  a1 a3 ; a4 a1 ; a3 a4 ? 2 a1 a4

All items of a prompt form one cycle; each stands with the one that follows it. The segment is a pair; the targets are
the k pairs that the way goes through. Content: the cycle's items, from the start on, and k. Slices: `n_items`, `hops`.
Source: Depo of the physics of language models (Allen-Zhu 2025, part 4.1); there an item has one token or several, and
questions come one after the other with k up to 16. The wording is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.keys import Keys
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Depo(Task):
    """Follow a cycle for some steps."""

    name: ClassVar[str] = "depo"
    sketch: ClassVar[str] = "`a1 a3 ; a4 a1 ; a3 a4 ; ? 2 a1` → `a4`"
    grows_with: ClassVar[str] = "pairs"
    size_field: ClassVar[str] = "n_items"
    default_size: ClassVar[tuple[int, int]] = (4, 16)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "colon": ("", ":"),
        "comma": (";", ","),
        "question": ("?", "\nQ:"),
        "after": ("", " after"),
        "answer": ("", "\nA:"),
    }

    n_items: tuple[int, int] | None = None
    """Items of the cycle, [fewest, most]."""
    hops: tuple[int, int] = (1, 4)
    """Steps that are asked for, [fewest, most]; fewer than items, where there are few."""

    @property
    def smallest_size(self) -> int:
        """A way does not come back to its start."""
        return self.hops[1] + 1 if isinstance(self.hops, tuple) else 2

    @property
    def largest_size(self) -> int:
        """Items of a prompt are different."""
        return len(Keys(self.lexicon, 2))

    def check(self) -> None:
        """Steps are numbers of the lexicon."""
        self.check_range("hops", 1, len(self.lexicon.numbers) - 1)
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts items."""
        n, W, word, keys = draws.n, int(size_n.max()), self.lexicon.phrase, Keys(self.lexicon, 2)
        row_n1, at_W = np.arange(n)[:, None], np.arange(W)
        exists_nW = at_W < size_n[:, None]
        key_nW = keys.draw(draws, "items", size_n)
        words_nW2 = keys.words(key_nW)
        next_nW = (at_W + 1) % size_n[:, None]
        order_nW = draws.shuffle("order", exists_nW)
        hops_n, start_n = draws.integers("hops", *self.hops), draws.integers("start", 0, size_n - 1)
        step_nW = (order_nW - start_n[:, None]) % size_n[:, None]
        target_nW = exists_nW & (step_nW < hops_n[:, None])
        end_n = (start_n + hops_n) % size_n
        left_nW2, right_nW2 = words_nW2[row_n1, order_nW], words_nW2[row_n1, next_nW[row_n1, order_nW]]

        draft = Draft(n)
        opens, colon, closes, comma = (np.full((n, W, 1), w) for w in (OPEN, word["colon"], CLOSE, word["comma"]))
        draft.put(
            np.concatenate([opens, left_nW2, colon, right_nW2, closes, comma], axis=2),
            source=(target_nW & (step_nW == hops_n[:, None] - 1))[..., None] & np.isin(np.arange(8), (4, 5)),
            target=target_nW[..., None],
            where=exists_nW[..., None],
        )
        draft.end_body()
        draft.put(word["question"])
        draft.put(self.lexicon.numbers[hops_n])
        draft.put(word["after"])
        draft.put(words_nW2[row_n1[:, 0], start_n], key=True)
        draft.put(word["answer"])
        draft.put(words_nW2[row_n1[:, 0], end_n], answer=True)
        # From the start on: a cycle has no beginning of its own.
        from_start_nW = key_nW[row_n1, (start_n[:, None] + at_W) % size_n[:, None]]
        draft.content(np.where(exists_nW, from_start_nW, ABSENT), hops_n)
        draft.slices |= {"n_items": size_n, "hops": hops_n}
        return draft
