"""Dedupe: the string with items that follow themselves written once.

    text      plum plum nail saw saw plum.⏎Q: without repetitions⏎A: plum nail saw plum.
    symbols  a3 a3 a9 a1 a1 a3 ? a3 a9 a1 a3 ]

Source: DeDupe of Ray Chowdhury and Caragea 2023, arXiv 2305.20019. An item repeats the one before it in one of two
cases.
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
class Dedupe(Rewriting):
    """Write repeated items once."""

    name: ClassVar[str] = "dedupe"
    sketch: ClassVar[str] = "`<meta> a3 a3 a9 a1 a1 a3 <meta> ?` → `a3 a9 a1 a3 ]`"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("without repetitions")

    def items(self, draws: Draws, size_n: IntArray) -> IntArray:
        """Every second item, on average, is the one before it."""
        items_nW = super().items(draws, size_n)
        new_nW = draws.integers("repeats", 0, 1, items_nW.shape[1]) == 0
        new_nW[:, 0] = True
        last_nW = np.maximum.accumulate(np.where(new_nW, np.arange(items_nW.shape[1]), 0), axis=1)
        return np.take_along_axis(items_nW, last_nW, axis=1)

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """Places whose item is not that of the place before."""
        new_nW = exists_nW & (np.diff(items_nW, axis=1, prepend=-1) != 0)
        return np.where(new_nW, np.arange(items_nW.shape[1]), ABSENT)
