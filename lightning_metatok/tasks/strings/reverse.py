"""Reverse: the string from its end to its beginning.

    text      plum nail saw.⏎Q: reverse⏎A: saw nail plum.        symbols  a3 a9 a1 ? a1 a9 a3 ]

Source: the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466); "reverse copy" of location attention (Ray Chowdhury
and Caragea 2023, arXiv 2305.20019).
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
class Reverse(Rewriting):
    """Write a string from its end to its beginning."""

    name: ClassVar[str] = "reverse"
    sketch: ClassVar[str] = "`<meta> a3 a9 a1 <meta> ?` → `a1 a9 a3 ]`"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("reverse")

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """From the last item to the first."""
        place_nW = exists_nW.sum(axis=1)[:, None] - 1 - np.arange(exists_nW.shape[1])
        return np.where(exists_nW, place_nW, ABSENT)
