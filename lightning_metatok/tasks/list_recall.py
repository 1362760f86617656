"""List recall (the paper's list pointer): several named lists, and which item stands where in one of them.

    text      Fruits: orange, peach. Tools:<|meta|> hammer, wrench, level, pliers<|meta|>.
              Q: what is item 3 of Tools?
              A: level
    symbols  L0 a4 a7 L9 <|meta|> a1 a4 a5 a2 <|meta|> ? 3 L9 a5

The segment is a list; the target is the list that is asked about. Content: the target's name, its items, and what is
asked. Slices: `n_lists`, `list_length` (of the target), `k` (which item, counted from 1).
Source: reference section 3; the prompt's wording is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import CLOSE, N_NAMES, N_NUMBERS, OPEN
from lightning_metatok.tasks.task import Draft, IntArray, Task


@dataclass(frozen=True)
class ListRecall(Task):
    """Recall item k of a named list."""

    name: ClassVar[str] = "list_recall"
    size_field: ClassVar[str] = "n_lists"
    default_size: ClassVar[tuple[int, int]] = (2, 5)
    largest_size: ClassVar[int] = N_NAMES
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "colon": ("", ":"),
        "comma": ("", ","),
        "stop": ("", "."),
        "question": ("?", "\nQ: what is item"),
        "of": ("", " of"),
        "answer": ("", "?\nA:"),
    }

    n_lists: tuple[int, int] | None = None
    """Lists in a prompt, [fewest, most]."""
    list_length: tuple[int, int] = (3, 8)
    """Items in a list, [fewest, most]."""
    pool: int | None = None
    """Different items that lists are made of; all there are when not given."""
    n_queries: int = 1
    """Questions in a training prompt, about different items of the target; evaluation asks one."""

    def check(self) -> None:
        """Items of a list are different, so that a list is no longer than the pool."""
        super().check()
        there_are = self.lexicon.items.shape[1]
        if self.pool is not None:
            self.expect(1 <= self.pool <= there_are, "pool", f"an integer from 1 to {there_are}, the items there are")
        most = min(self.pool or there_are, N_NUMBERS - 1)
        self.check_range("list_length", 1, most)
        self.expect(self.n_queries >= 1, "n_queries", "at least 1")

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts lists."""
        n, N, K, lexicon = draws.n, int(size_n.max()), self.list_length[1], self.lexicon
        pool = self.pool or lexicon.items.shape[1]
        row_n1 = np.arange(n)[:, None]
        names_nN = draws.choose("names", N, N_NAMES)
        lengths_nN = draws.integers("lengths", *self.list_length, N)
        items_nNK = lexicon.items[names_nN[..., None], draws.choose("items", K, pool, N)]
        target_n = draws.integers("target", 0, size_n - 1)
        exists_nN = np.arange(N) < size_n[:, None]
        is_target_nN = np.arange(N) == target_n[:, None]
        exists_nNK = exists_nN[..., None] & (np.arange(K) < lengths_nN[..., None])
        length_n = lengths_nN[row_n1[:, 0], target_n]
        # Different items of the target, first those it has.
        order_nK = draws.shuffle("asked", np.arange(K) < length_n[:, None])

        draft = Draft(n)
        word = lexicon.phrase
        # One column group a list: name : OPEN item , item , ... CLOSE .
        for i in range(N):
            here_n, of_target_n = exists_nN[:, i], is_target_nN[:, i]
            draft.put(lexicon.names[names_nN[:, i]], where=here_n)
            draft.put(word["colon"], where=here_n)
            draft.put(OPEN, target=of_target_n, where=here_n)
            is_source_nK = of_target_n[:, None] & (np.arange(K) == order_nK[:, :1])
            commas_nK = np.where(np.arange(K) > 0, word["comma"], -1) + np.zeros((n, 1), dtype=np.int64)
            draft.put(
                np.stack([commas_nK, items_nNK[:, i]], axis=2),
                source=np.stack([np.zeros((n, K), dtype=bool), is_source_nK], axis=2),
                where=exists_nNK[:, i, :, None],
            )
            draft.put(CLOSE, target=of_target_n, where=here_n)
            draft.put(word["stop"], where=here_n)
        draft.end_body()
        target_name_n = names_nN[row_n1[:, 0], target_n]
        target_items_nK = items_nNK[row_n1[:, 0], target_n]
        for query in range(min(self.n_queries, K)):
            asked_n = query < length_n
            which_n = order_nK[:, query]
            for part in (word["question"], lexicon.numbers[which_n + 1], word["of"], lexicon.names[target_name_n]):
                draft.put(part, where=asked_n)
            draft.put(word["answer"], where=asked_n)
            draft.put(target_items_nK[row_n1[:, 0], which_n], answer=True, where=asked_n)
        items_n = np.where(np.arange(K) < length_n[:, None], target_items_nK, -1)
        draft.content(target_name_n, items_n, order_nK[:, 0])
        draft.slices |= {"n_lists": size_n, "list_length": length_n, "k": order_nK[:, 0] + 1}
        return draft
