"""Segment counting: named lists whose items repeat, and how often an item stands in one of them.

    text      Fruits: plum, saw, plum. Tools:<|meta|> saw, nail, saw<|meta|>.
              Q: how many saw in Tools?
              A: 2
    symbols  L0 a4 a1 a4 L9 <|meta|> a1 a3 a1 <|meta|> # L9 a1 2

The segment is a list; the target is the list that is asked about. All lists of a prompt are made of the same few items,
and the item asked about stands in another list too, so that counting it in the whole prompt gives a wrong number.
Content: the target's name and its items. Slices: `n_lists`, `list_length` (of the target), `count`.
Source: arXiv 2509.16278, its synthetic tasks; the prompt's wording is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT
from lightning_metatok.tasks.lists import ITEMS, PHRASES, NamedLists, list_words


@dataclass(frozen=True)
class SegmentCounting(NamedLists):
    """Count an item in a named list."""

    name: ClassVar[str] = "segment_counting"
    sketch: ClassVar[str] = "`L0 a4 a1 a4 L9 <meta> a1 a3 a1 <meta> # L9 a1` → `2`"
    grows_with: ClassVar[str] = "lists"
    content_draws: ClassVar[tuple[str, ...]] = ("repeats",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        **PHRASES,
        "question": ("#", "\nQ: how many"),
        "in": ("", " in"),
        "answer": ("", "?\nA:"),
    }

    list_length: tuple[int, int] = (4, 12)
    """Items in a list, repeated ones included, [fewest, most]."""
    distinct: int = 3
    """Different items that the lists of one prompt are made of."""

    def check_items(self) -> None:
        """Each prompt needs `distinct` items of the pool, and counts must be numbers of the lexicon."""
        there_are = len(self.lexicon.everything)
        if self.pool is not None:
            self.check_integer("pool", 2, there_are, ", the items there are")
        self.check_integer("distinct", 2, self.pool or there_are, ", the items of the pool")
        self.check_range("list_length", 1, len(self.lexicon.numbers) - 1)

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts lists."""
        n, N, K, D, lexicon = draws.n, int(size_n.max()), self.list_length[1], self.distinct, self.lexicon
        row_n = np.arange(n)
        names_nN = draws.choose("names", N, self.largest_size)
        lengths_nN = draws.integers("lengths", *self.list_length, N)
        target_n = draws.integers("target", 0, size_n - 1)
        exists_nN = np.arange(N) < size_n[:, None]
        is_target_nN = np.arange(N) == target_n[:, None]
        exists_nNK = exists_nN[..., None] & (np.arange(K) < lengths_nN[..., None])
        which_nNK = urn(draws, N, K, D)
        length_n, target_which_nK = lengths_nN[row_n, target_n], which_nNK[row_n, target_n]
        in_target_nK = np.arange(K) < length_n[:, None]

        items_nD = lexicon.everything[draws.choose("items", D, self.pool or len(lexicon.everything))]
        items_nNK = items_nD[row_n[:, None, None], which_nNK]
        in_others_nNK = exists_nNK & ~is_target_nN[..., None]
        elsewhere_nD = np.stack([((which_nNK == d) & in_others_nNK).any(axis=(1, 2)) for d in range(D)], axis=1)
        # A prompt of one list has no other lists: ask about any item.
        elsewhere_nD |= size_n[:, None] == 1
        order_nD = draws.shuffle("asked", elsewhere_nD)
        counts_nD = ((target_which_nK[:, None] == order_nD[..., None]) & in_target_nK[:, None]).sum(axis=2)
        is_counted_nK = (target_which_nK == order_nD[:, :1]) & in_target_nK
        is_first_nK = is_counted_nK & (np.cumsum(is_counted_nK, axis=1) == 1)

        draft = Draft(n)
        words_nNW = list_words(lexicon, names_nN, items_nNK, exists_nNK)
        source_nNW = np.zeros(words_nNW.shape, dtype=bool)
        source_nNW[row_n, target_n, ITEMS] = is_first_nK
        draft.put(words_nNW, source=source_nNW, target=is_target_nN[..., None], where=exists_nN[..., None])
        draft.end_body()
        target_name_n = names_nN[row_n, target_n]
        for query in range(min(self.n_queries, D)):
            asked_n = query < elsewhere_nD.sum(axis=1)
            item_n = items_nD[row_n, order_nD[:, query]]
            self.put_question(draft, item_n, "in", target_name_n, asked_n)
            draft.put(lexicon.numbers[counts_nD[:, query]], answer=True, where=asked_n)
        # Whatever is asked about a list, the list is of one split.
        draft.content(target_name_n, np.where(in_target_nK, items_nNK[row_n, target_n], ABSENT))
        draft.slices |= {"n_lists": size_n, "list_length": length_n, "count": counts_nD[:, 0]}
        return draft


def urn(
    draws: Draws,
    N: int,
    K: int,
    D: int,
) -> IntArray:
    """Return lists of the numbers below `D`, int64 [n, N, K], in which every set of counts is equally likely.

    Pólya's urn: each item is new with the weight D, or else repeats one before it, each with the weight 1. Independent
    items would give counts close to K / D: easy to guess, and hardly ever 0.
    """
    which_nNK = np.zeros((draws.n, N, K), dtype=np.int64)
    picks_nNK = draws.integers("repeats", 0, D - 1 + np.arange(K), N, K)
    for k in range(K):
        pick_nN1 = picks_nNK[..., k : k + 1]
        repeated_nN = np.take_along_axis(which_nNK, np.maximum(pick_nN1 - D, 0), axis=2)[..., 0]
        which_nNK[..., k] = np.where(pick_nN1[..., 0] < D, pick_nN1[..., 0], repeated_nN)
    return which_nNK
