"""List recall (the paper's list pointer): several named lists, and which item stands where in one of them.

    text      Fruits: orange, peach. Tools:<|meta|> hammer, wrench, level, pliers<|meta|>.
              Q: what is item 3 of Tools?
              A: level
    symbols  L0 a4 a7 L9 <|meta|> a1 a4 a5 a2 <|meta|> ? L9 3 a5

The segment is a list; the target is the list that is asked about. Content: the target's name and its
items. Slices: `n_lists`, `list_length` (of the target), `k` (which item, counted from 1).
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
class ListRecall(NamedLists):
    """Recall item k of a named list."""

    name: ClassVar[str] = "list_recall"
    sketch: ClassVar[str] = "`L0 a4 a7 L9 <meta> a1 a4 a5 a2 <meta> ? L9 3` → `a5`"
    grows_with: ClassVar[str] = "lists"
    content_draws: ClassVar[tuple[str, ...]] = ("items",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        **PHRASES,
        "question": ("?", "\nQ: what is item"),
        "of": ("", " of"),
        "answer": ("", "?\nA:"),
    }

    list_length: tuple[int, int] = (3, 8)
    """Items in a list, [fewest, most]."""

    def check_items(self) -> None:
        """Items of a list are different, so that a list is no longer than the pool."""
        there_are = self.lexicon.items.shape[1]
        if self.pool is not None:
            self.check_integer("pool", 1, there_are, ", the items there are")
        self.check_range("list_length", 1, min(self.pool or there_are, len(self.lexicon.numbers) - 1))

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts lists."""
        n, N, K, lexicon = draws.n, int(size_n.max()), self.list_length[1], self.lexicon
        pool = self.pool or lexicon.items.shape[1]
        row_n = np.arange(n)
        names_nN = draws.choose("names", N, self.largest_size)
        lengths_nN = draws.integers("lengths", *self.list_length, N)
        exists_nN = np.arange(N) < size_n[:, None]
        items_nNK = lexicon.items[names_nN[..., None], draws.choose("items", K, pool, N, where=exists_nN)]
        target_n = draws.integers("target", 0, size_n - 1)
        is_target_nN = np.arange(N) == target_n[:, None]
        exists_nNK = exists_nN[..., None] & (np.arange(K) < lengths_nN[..., None])
        length_n = lengths_nN[row_n, target_n]
        # Different items of the target, first those it has.
        order_nK = draws.shuffle("asked", np.arange(K) < length_n[:, None])

        draft = Draft(n)
        words_nNW = list_words(lexicon, names_nN, items_nNK, exists_nNK)
        source_nNW = np.zeros(words_nNW.shape, dtype=bool)
        source_nNW[..., ITEMS] = is_target_nN[..., None] & (np.arange(K) == order_nK[:, None, :1])
        draft.put(words_nNW, source=source_nNW, target=is_target_nN[..., None], where=exists_nN[..., None])
        draft.end_body()
        target_name_n = names_nN[row_n, target_n]
        target_items_nK = items_nNK[row_n, target_n]
        for query in range(min(self.n_queries, K)):
            asked_n = query < length_n
            which_n = order_nK[:, query]
            self.put_question(draft, lexicon.numbers[which_n + 1], "of", target_name_n, asked_n)
            draft.put(target_items_nK[row_n, which_n], answer=True, where=asked_n)
        items_n = np.where(np.arange(K) < length_n[:, None], target_items_nK, ABSENT)
        # Whatever is asked about a list, the list is of one split.
        draft.content(target_name_n, items_n)
        draft.slices |= {"n_lists": size_n, "list_length": length_n, "k": order_nK[:, 0] + 1}
        return draft
