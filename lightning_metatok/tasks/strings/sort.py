"""Sort: numbers, the smallest first; equal ones stand as often as they come.

    text      7 40 7 12.⏎Q: sort⏎A: 7 7 12 40.        symbols  7 40 7 12 ? 7 7 12 40 ]

Source: the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466). Of equal numbers the first comes first, which coupled
position ids tell apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.lexicon import ABSENT
from lightning_metatok.tasks.strings.rewriting import Rewriting, phrases


@dataclass(frozen=True)
class Sort(Rewriting):
    """Sort numbers."""

    name: ClassVar[str] = "sort"
    sketch: ClassVar[str] = "`<meta> 7 40 7 12 <meta> ?` → `7 7 12 40 ]`"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("sort")

    @property
    def words(self) -> IntArray:
        """Numbers."""
        return self.lexicon.numbers

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """From the smallest number to the largest."""
        order_nW = np.argsort(np.where(exists_nW, items_nW, self.n_kinds), axis=1, kind="stable")
        return np.where(exists_nW, order_nW, ABSENT)
