"""Position retrieval: each number of the string says at which place to look; places count from 0.

    text      2 0 1 1.⏎Q: look there⏎A: 1 2 0 0.        symbols  2 0 1 1 ? 1 2 0 0 ]

The answer's word i is x[x[i]]. There are 128 numbers, so that longer strings are looked at in their beginning.
Source: PosRetrieve of Ray Chowdhury and Caragea 2023, arXiv 2305.20019.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT
from lightning_metatok.tasks.strings.rewriting import Rewriting, phrases


@dataclass(frozen=True)
class PositionRetrieval(Rewriting):
    """Look at the places that the string itself names."""

    name: ClassVar[str] = "position_retrieval"
    sketch: ClassVar[str] = "`<meta> 2 0 1 1 <meta> ?` → `1 2 0 0 ]`"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("look there")

    @property
    def words(self) -> IntArray:
        """Numbers."""
        return self.lexicon.numbers

    def items(self, draws: Draws, size_n: IntArray) -> IntArray:
        """Places of the string."""
        most_n1 = np.minimum(size_n, self.n_kinds)[:, None] - 1
        return draws.integers("items", 0, most_n1, int(size_n.max()))

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """What each item names."""
        return np.where(exists_nW, items_nW, ABSENT)
