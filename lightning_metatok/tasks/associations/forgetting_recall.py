"""Forgetting recall: some keys are bound again later, and the last binding counts.

    text      Tools saw: 7, Fruits plum: 9, Tools saw: 3.⏎Q: Tools saw⏎A: 3⏎Q: Fruits plum⏎A: 9
    symbols  L1 a2 7 L0 a3 9 L1 a2 3 ? L1 a2 3 ? L0 a3 9

A key is two words, so that there are enough for any prompt. All keys are bound once; then `updates` of them, a share,
are bound again, each to another value. Half of the questions, or as many as there are, ask about keys that were bound
again. The segment is a binding; the targets are the last ones of the keys that are asked about. Content: the keys
asked, in order, and their values. Slices: `n_keys`, `n_updates`, `n_queries`.
Source: forgetting MQAR of Zoology (Arora et al. 2023, arXiv 2312.04927; `zoology/data/forgetting_mqar.py`): there, too,
all first bindings stand before the second ones, and every key is asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.bindings import put_bindings, put_questions
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.keys import Keys
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class ForgettingRecall(Task):
    """Recall the last values of keys that are bound again."""

    name: ClassVar[str] = "forgetting_recall"
    sketch: ClassVar[str] = "`L1 a2 7 L0 a3 9 L1 a2 3 ? L1 a2` → `3`, several times"
    grows_with: ClassVar[str] = "keys"
    size_field: ClassVar[str] = "n_keys"
    default_size: ClassVar[tuple[int, int]] = (4, 12)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "colon": ("", ":"),
        "comma": ("", ","),
        "stop": ("?", "."),
        "next": ("?", ""),
        "question": ("", "\nQ:"),
        "answer": ("", "\nA:"),
    }

    n_keys: tuple[int, int] | None = None
    """Different keys of a prompt, [fewest, most]; no fewer than `n_queries`."""
    updates: float = 0.5
    """Share of the keys that are bound again, at least one of them."""
    n_queries: int = 2
    """Questions in a prompt, about different keys."""

    @property
    def keys(self) -> Keys:
        """What values are bound to."""
        return Keys(self.lexicon, 2)

    @property
    def smallest_size(self) -> int:
        """A key is asked once."""
        return max(2, self.n_queries)

    @property
    def largest_size(self) -> int:
        """Keys of a prompt are different."""
        return len(self.keys)

    def check(self) -> None:
        """Some keys are bound again, and there are as many as are asked about."""
        share = isinstance(self.updates, int | float) and not isinstance(self.updates, bool)
        self.expect(share and 0 < self.updates <= 1, "updates", "a number above 0, at most 1")
        self.check_integer("n_queries", 1, len(self.keys), ", the keys there are")
        super().check()

    def asking_once(self) -> Task:
        """Return the task as it is: several questions are what it is about."""
        return self

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts keys."""
        n, K, Q, word, numbers = draws.n, int(size_n.max()), self.n_queries, self.lexicon.phrase, self.lexicon.numbers
        at_K, most = np.arange(K), len(numbers)
        exists_nK = at_K < size_n[:, None]
        key_nK = self.keys.draw(draws, "keys", size_n)
        words_nK2 = self.keys.words(key_nK)
        first_nK = draws.integers("values", 0, most - 1, K)
        # Never the value that a key has already.
        again_nK = (first_nK + draws.integers("new values", 1, most - 1, K)) % most
        n_updates_n = np.maximum(1, np.floor(self.updates * size_n).astype(np.int64))
        updated_nK = draws.shuffle("updated", exists_nK)
        is_update_nK = at_K < n_updates_n[:, None]
        is_updated_nK = np.zeros((n, K), dtype=bool)
        np.put_along_axis(is_updated_nK, updated_nK, is_update_nK, axis=1)
        last_nK = np.where(is_updated_nK, again_nK, first_nK)
        asked_nQ = self._asked(draws, size_n, n_updates_n, updated_nK)
        is_asked_nK = np.zeros((n, K), dtype=bool)
        np.put_along_axis(is_asked_nK, asked_nQ, True, axis=1)

        draft = Draft(n)
        bindings = (
            (at_K + np.zeros((n, 1), dtype=np.int64), first_nK, exists_nK, is_asked_nK & ~is_updated_nK),
            (updated_nK, again_nK, is_update_nK, is_asked_nK),
        )
        for turn, (place_nK, value_nK, there_nK, target_nK) in enumerate(bindings):
            put_bindings(
                draft,
                word,
                np.take_along_axis(words_nK2, place_nK[..., None], axis=1),
                numbers[np.take_along_axis(value_nK, place_nK, axis=1)],
                target_nW=np.take_along_axis(target_nK, place_nK, axis=1),
                exists_nW=there_nK,
                first=turn == 0,
            )
        draft.put(word["stop"])
        draft.end_body()
        asked_nQ2 = np.take_along_axis(words_nK2, asked_nQ[..., None], axis=1)
        value_nQ = np.take_along_axis(last_nK, asked_nQ, axis=1)
        put_questions(draft, word, asked_nQ2, numbers[value_nQ], between="next")
        draft.content(np.take_along_axis(key_nK, asked_nQ, axis=1), value_nQ)
        draft.slices |= {"n_keys": size_n, "n_updates": n_updates_n, "n_queries": np.full(n, Q)}
        return draft

    def _asked(self, draws: Draws, size_n: IntArray, n_updates_n: IntArray, updated_nK: IntArray) -> IntArray:
        """Which keys are asked about, [n, queries]: half of them were bound again, if there are so many.

        `updated_nK`: keys in random order, the first `n_updates_n` of which are bound again.
        """
        Q = self.n_queries
        kept_n = size_n - n_updates_n
        again_n = np.clip((Q + 1) // 2, Q - kept_n, n_updates_n)[:, None]
        at_Q = np.arange(Q)
        place_nQ = np.where(at_Q < again_n, at_Q, n_updates_n[:, None] + at_Q - again_n)
        chosen_nQ = np.take_along_axis(updated_nK, place_nQ, axis=1)
        return np.take_along_axis(chosen_nQ, draws.shuffle("asked", np.ones((draws.n, Q), dtype=bool)), axis=1)
