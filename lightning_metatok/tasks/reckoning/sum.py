"""Sum: a list of numbers added up modulo m.

    text      7 2 5.⏎Q: sum modulo 10⏎A: 4        symbols  7 2 5 ? 10 4

One segment, the list: `hint` and `every` put the same marks. Content: the list and the modulus. Slices: `n_items`,
`modulus`.
Source: the modular sum of the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466), where the numbers are 1 to 9 and
m is 10. Here they are 0 to m - 1, so that every answer is as likely as any other at any length; the modulus in the
question and the wording are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Sum(Task):
    """Add up a list of numbers modulo m."""

    name: ClassVar[str] = "sum"
    sketch: ClassVar[str] = "`<meta> 7 2 5 <meta> ? 10` → `4`"
    grows_with: ClassVar[str] = "numbers"
    size_field: ClassVar[str] = "n_items"
    default_size: ClassVar[tuple[int, int]] = (2, 20)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "stop": ("?", "."),
        "question": ("", "\nQ: sum modulo"),
        "answer": ("", "\nA:"),
    }

    n_items: tuple[int, int] | None = None
    """Numbers of the list, [fewest, most]."""
    modulus: int = 10
    """The answer is the sum modulo this; numbers of the list are smaller."""

    def check(self) -> None:
        """The modulus is a number that there is."""
        self.check_integer("modulus", 2, len(self.lexicon.numbers) - 1, ", the largest number there is")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts numbers."""
        W, word, numbers = int(size_n.max()), self.lexicon.phrase, self.lexicon.numbers
        exists_nW = np.arange(W) < size_n[:, None]
        items_nW = draws.integers("items", 0, self.modulus - 1, W)
        sum_n = (items_nW * exists_nW).sum(axis=1) % self.modulus

        draft = Draft(draws.n)
        draft.put(OPEN, target=True)
        draft.put(numbers[items_nW], source=True, where=exists_nW)
        draft.put(CLOSE, target=True)
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        draft.put(numbers[self.modulus])
        draft.put(word["answer"])
        draft.put(numbers[sum_n], answer=True)
        modulus_n = np.full(draws.n, self.modulus)
        draft.content(np.where(exists_nW, items_nW, ABSENT), modulus_n)
        draft.slices |= {"n_items": size_n, "modulus": modulus_n}
        return draft
