"""Rewriting: a string of items and the same items in another order, or some of them, or some of them several times.

    text      plum nail saw.⏎Q: reverse⏎A: saw nail plum.        symbols  a3 a9 a1 ? a1 a9 a3 ]

A task says at which place of the string each word of its answer stands, see `Rewriting.places`. The end sign is scored,
too, so that stopping counts. One segment, the string: `hint` and `every` put the same marks. Content: the string.
Slices: `n_items`, `answer_length` (without the sign).
Coupled position ids (as Cho et al. 2024, arXiv 2405.20671, for copying): items count from 1, a word of the answer has
the id of the place it was taken from, all else has 0.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task


def phrases(order: str) -> Mapping[str, tuple[str, str]]:
    """The words of a task whose text asks for `order`."""
    return {
        "stop": ("?", "."),
        "question": ("", f"\nQ: {order}"),
        "answer": ("", "\nA:"),
        "end": ("]", "."),
    }


@dataclass(frozen=True)
class Rewriting(Task):
    """Write the items of a string again; a subclass says which ones and in what order."""

    grows_with: ClassVar[str] = "items"
    size_field: ClassVar[str] = "n_items"
    default_size: ClassVar[tuple[int, int]] = (2, 20)

    n_items: tuple[int, int] | None = None
    """Items of the string, [fewest, most]."""
    pool: int | None = None
    """Different items that strings are made of; all there are when not given."""

    @property
    def words(self) -> IntArray:
        """Words that items can be, [words]."""
        return self.lexicon.everything

    @property
    def n_kinds(self) -> int:
        """How many different items there are."""
        return self.pool or len(self.words)

    def check(self) -> None:
        """The pool is made of words that there are."""
        if self.pool is not None:
            self.check_integer("pool", 1, len(self.words), ", the items there are")
        super().check()

    def items(self, draws: Draws, size_n: IntArray) -> IntArray:
        """Return the numbers of the items, [n, largest size]; those behind the end of a string do not matter."""
        return draws.integers("items", 0, self.n_kinds - 1, int(size_n.max()))

    @abstractmethod
    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """Return at which place of the string each word of the answer stands, [n, ...]; ABSENT leaves no trace."""

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts items."""
        items_nW, word = self.items(draws, size_n), self.lexicon.phrase
        at_W = np.arange(items_nW.shape[1])
        exists_nW = at_W < size_n[:, None]
        words_nW = np.where(exists_nW, self.words[items_nW], ABSENT)
        place_nA = self.places(items_nW, exists_nW)
        answer_nA = np.where(place_nA < 0, ABSENT, np.take_along_axis(words_nW, np.maximum(place_nA, 0), axis=1))

        draft = Draft(draws.n)
        draft.put(OPEN, target=True, ids=0)
        draft.put(words_nW, source=True, ids=at_W + 1)
        draft.put(CLOSE, target=True, ids=0)
        draft.put(word["stop"], ids=0)
        draft.end_body()
        for part in ("question", "answer"):
            draft.put(word[part], ids=0)
        draft.put(answer_nA, answer=True, ids=place_nA + 1)
        draft.put(word["end"], answer=True, ids=0)
        draft.content(words_nW)
        draft.slices |= {"n_items": size_n, "answer_length": (place_nA >= 0).sum(axis=1)}
        return draft
