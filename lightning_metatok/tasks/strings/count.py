"""Count: how often an item stands in a string.

    text      plum nail plum saw.⏎Q: how many plum?⏎A: 2        symbols  a3 a9 a3 a1 ? a3 2

Every count from 1 to `most` is equally likely, as long as the string has room for it. One segment, the string. Content:
the string and the item. Slices: `n_items`, `count`.
Source: "count" of the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466); the wording is ours. `segment_counting`
asks about one of several lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Count(Task):
    """Count an item in a string."""

    name: ClassVar[str] = "count"
    sketch: ClassVar[str] = "`<meta> a3 a9 a3 a1 <meta> ? a3` → `2`"
    grows_with: ClassVar[str] = "items"
    size_field: ClassVar[str] = "n_items"
    default_size: ClassVar[tuple[int, int]] = (2, 20)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "stop": ("?", "."),
        "question": ("", "\nQ: how many"),
        "answer": ("", "?\nA:"),
    }

    n_items: tuple[int, int] | None = None
    """Items of the string, [fewest, most]."""
    most: int = 10
    """The largest count."""
    pool: int | None = None
    """Different items that strings are made of; all there are when not given."""

    def check(self) -> None:
        """Counts are numbers of the lexicon; the pool has an item that is not counted."""
        self.check_integer("most", 1, len(self.lexicon.numbers) - 1, ", the numbers there are")
        if self.pool is not None:
            self.check_integer("pool", 2, len(self.lexicon.everything), ", the items there are")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts items."""
        W, word, lexicon = int(size_n.max()), self.lexicon.phrase, self.lexicon
        exists_nW = np.arange(W) < size_n[:, None]
        n_kinds = self.pool or len(lexicon.everything)
        asked_n = draws.integers("asked", 0, n_kinds - 1)
        others_nW = (asked_n[:, None] + draws.integers("items", 1, n_kinds - 1, W)) % n_kinds
        count_n = draws.integers("count", 1, np.minimum(size_n, self.most))
        rank_nW = np.argsort(draws.shuffle("places", exists_nW), axis=1)
        counted_nW = exists_nW & (rank_nW < count_n[:, None])
        items_nW = np.where(counted_nW, asked_n[:, None], others_nW)
        words_nW = np.where(exists_nW, lexicon.everything[items_nW], ABSENT)

        draft = Draft(draws.n)
        draft.put(OPEN, target=True)
        draft.put(words_nW, source=counted_nW)
        draft.put(CLOSE, target=True)
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        draft.put(lexicon.everything[asked_n], key=True)
        draft.put(word["answer"])
        draft.put(lexicon.numbers[count_n], answer=True)
        draft.content(words_nW, asked_n)
        draft.slices |= {"n_items": size_n, "count": count_n}
        return draft
