"""Compositional recall: a value is bound to a pair of keys, either of which has other values with other partners.

    text      saw plum: 7, fig plum: 9, fig ant: 3, saw ant: 0.⏎Q: fig plum⏎A: 9⏎Q: ...
    symbols  L1 a2 7 L3 a2 9 L3 a6 3 L1 a6 0 ? L3 a2 9 ? ...

First and second keys form a grid, every pair of which stands in the prompt, in random order: neither key alone tells
the value. The segment is a pair with its value; the targets are all pairs that are asked about. Keys are different,
values may repeat. Content: the pairs asked, in order, and their values. Slices: `n_rows` (first keys), `n_columns`
(second keys), `n_queries`.
Source: compositional MQAR of Zoology (Arora et al. 2023, arXiv 2312.04927; `zoology/data/compositional_mqar.py`). There
the grid is a square and every pair is asked about; here the prompt grows by first keys, and `n_columns` is an option.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.bindings import put_bindings, put_questions
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class CompositionalRecall(Task):
    """Recall values that are bound to pairs of keys."""

    name: ClassVar[str] = "compositional_recall"
    sketch: ClassVar[str] = "`L1 a2 7 L3 a2 9 L3 a6 3 L1 a6 0 ? L3 a2` → `9`, several times"
    grows_with: ClassVar[str] = "first keys"
    size_field: ClassVar[str] = "n_rows"
    default_size: ClassVar[tuple[int, int]] = (2, 6)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "colon": ("", ":"),
        "comma": ("", ","),
        "stop": ("?", "."),
        "next": ("?", ""),
        "question": ("", "\nQ:"),
        "answer": ("", "\nA:"),
    }

    n_rows: tuple[int, int] | None = None
    """First keys, [fewest, most]; each stands with all second keys."""
    n_columns: int = 2
    """Second keys."""
    n_queries: int = 2
    """Questions in a prompt, about different pairs."""

    @property
    def first_keys(self) -> IntArray:
        """Words that a first key can be, no second key among them, [words]."""
        lexicon = self.lexicon
        return lexicon.names if lexicon.rendering == "symbols" else lexicon.everything[: len(lexicon.everything) // 2]

    @property
    def second_keys(self) -> IntArray:
        """Words that a second key can be, [words]."""
        lexicon = self.lexicon
        words = lexicon.everything
        return words if lexicon.rendering == "symbols" else words[len(words) // 2 :]

    @property
    def smallest_size(self) -> int:
        """There are two first keys, and as many pairs as questions."""
        return max(2, -(-self.n_queries // self.n_columns))

    @property
    def largest_size(self) -> int:
        """First keys of a prompt are different."""
        return len(self.first_keys)

    def check(self) -> None:
        """Neither kind of keys has one alone."""
        self.check_integer("n_columns", 2, len(self.second_keys), ", the second keys there are")
        most = self.n_columns * len(self.first_keys)
        self.check_integer("n_queries", 1, most, ", the pairs there are")
        super().check()

    def asking_once(self) -> Task:
        """Return the task as it is: several questions are what it is about."""
        return self

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts first keys."""
        n, K, word, numbers = draws.n, self.n_columns, self.lexicon.phrase, self.lexicon.numbers
        W = int(size_n.max()) * K
        first_nF = draws.choose("first keys", int(size_n.max()), len(self.first_keys))
        second_nK = draws.choose("second keys", K, len(self.second_keys))
        exists_nW = np.arange(W) < size_n[:, None] * K
        pair_nW = draws.shuffle("order", exists_nW)
        row_nW, column_nW = np.divmod(pair_nW, K)
        words_nW2 = np.stack(
            [
                self.first_keys[np.take_along_axis(first_nF, row_nW, axis=1)],
                self.second_keys[np.take_along_axis(second_nK, column_nW, axis=1)],
            ],
            axis=2,
        )
        value_nW = draws.integers("values", 0, len(numbers) - 1, W)
        asked_nQ = draws.shuffle("asked", exists_nW)[:, : self.n_queries]
        target_nW = np.zeros((n, W), dtype=bool)
        np.put_along_axis(target_nW, asked_nQ, True, axis=1)

        draft = Draft(n)
        put_bindings(draft, word, words_nW2, numbers[value_nW], target_nW=target_nW, exists_nW=exists_nW)
        draft.put(word["stop"])
        draft.end_body()
        asked_nQ2 = np.take_along_axis(words_nW2, asked_nQ[..., None], axis=1)
        value_nQ = np.take_along_axis(value_nW, asked_nQ, axis=1)
        put_questions(draft, word, asked_nQ2, numbers[value_nQ], between="next")
        draft.content(asked_nQ2, value_nQ)
        per_prompt = {"n_columns": K, "n_queries": self.n_queries}
        draft.slices |= {"n_rows": size_n, **{key: np.full(n, value) for key, value in per_prompt.items()}}
        return draft
