"""LEGO: a chain of variables, each plus or minus the one before it, in random order; what is the value of one of them?

    text      fig = - saw; saw = + 1; plum = + fig;⏎Q: what is plum?⏎A: - 1
    symbols  a4 = zero a9 ; a9 = one one ; a1 = one a4 ; ? a1 zero one

A variable has one word, all of a prompt are different; in symbols plus is `one` and minus is `zero`. The segment is a
clause; the targets are those that the value goes through, from the first clause of the chain to the one asked about.
The answer is a sign and 1; half of all signs are minus. Content: the clauses of the way, from the first on. Slices:
`n_variables`, `hops` (clauses that the value goes through behind the first).
Source: LEGO of the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466), after Zhang et al. 2022, arXiv 2206.04301;
there, a variable of the second half of the chain is asked about, as here, and clauses stand in the order of the chain
unless they are permuted, here `shuffled`. The wording is ours.
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

SIGN = 4
"""The column of a clause that holds its sign: OPEN, two words, "=", sign, two words, CLOSE, ";"."""


@dataclass(frozen=True)
class Lego(Task):
    """Resolve a chain of signed assignments."""

    name: ClassVar[str] = "lego"
    sketch: ClassVar[str] = "`a4 = zero a9 ; a9 = one one ; ? a4` → `zero one`"
    grows_with: ClassVar[str] = "variables"
    size_field: ClassVar[str] = "n_variables"
    default_size: ClassVar[tuple[int, int]] = (2, 12)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "equals": ("=", " ="),
        "minus": ("zero", " -"),
        "plus": ("one", " +"),
        "unit": ("one", " 1"),
        "end": (";", ";"),
        "question": ("?", "\nQ: what is"),
        "answer": ("", "?\nA:"),
    }

    n_variables: tuple[int, int] | None = None
    """Variables of the chain, [fewest, most]."""
    shuffled: bool = True
    """Clauses stand in random order; if not, in that of the chain."""

    @property
    def variables(self) -> Keys:
        """What values are assigned to."""
        return Keys(self.lexicon, 1)

    @property
    def largest_size(self) -> int:
        """Variables of a prompt are different."""
        return len(self.variables)

    def check(self) -> None:
        """The order is a switch."""
        self.expect(isinstance(self.shuffled, bool), "shuffled", "true or false")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts variables."""
        n, W, word = draws.n, int(size_n.max()), self.lexicon.phrase
        row_n, at_W = np.arange(n), np.arange(W)
        exists_nW = at_W < size_n[:, None]
        key_nW = self.variables.draw(draws, "variables", size_n)
        words_nW2 = self.variables.words(key_nW)
        unit_n12 = np.broadcast_to(np.array([ABSENT, word["unit"]]), (n, 1, 2))
        right_nW2 = np.concatenate([unit_n12, words_nW2[:, :-1]], axis=1)
        minus_nW = draws.integers("signs", 0, 1, W)
        asked_n = draws.integers("asked", size_n // 2, size_n - 1)
        on_way_nW = at_W <= asked_n[:, None]
        negative_n = (minus_nW * on_way_nW).sum(axis=1) % 2
        signs = np.array([word["plus"], word["minus"]])

        order_nW = draws.shuffle("order", exists_nW) if self.shuffled else at_W + np.zeros((n, 1), dtype=np.int64)
        draft = Draft(n)
        opens, equals, closes, end = (np.full((n, W, 1), w) for w in (OPEN, word["equals"], CLOSE, word["end"]))
        clauses = np.concatenate(
            [opens, words_nW2, equals, signs[minus_nW][..., None], right_nW2, closes, end],
            axis=2,
        )
        target_nW = np.take_along_axis(on_way_nW & exists_nW, order_nW, axis=1)
        draft.put(
            np.take_along_axis(clauses, order_nW[..., None], axis=1),
            source=target_nW[..., None] & (np.arange(9) == SIGN),
            target=target_nW[..., None],
            where=np.take_along_axis(exists_nW, order_nW, axis=1)[..., None],
        )
        draft.end_body()
        draft.put(word["question"])
        draft.put(words_nW2[row_n, asked_n], key=True)
        draft.put(word["answer"])
        draft.put(np.stack([signs[negative_n], np.full(n, word["unit"])], axis=1), answer=True)
        draft.content(*(np.where(on_way_nW, of_nW, ABSENT) for of_nW in (key_nW, minus_nW)))
        draft.slices |= {"n_variables": size_n, "hops": asked_n}
        return draft
