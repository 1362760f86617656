"""Repeating: the string once more, word by word.

    text      plum nail saw.⏎Q: repeat⏎A: plum nail saw.        symbols  a3 a9 a1 ? a3 a9 a1 ]

Source: "copy" of the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466), of position coupling and of location
attention. `copying` asks for one span of a longer text.
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
class Repeating(Rewriting):
    """Write a string once more."""

    name: ClassVar[str] = "repeating"
    sketch: ClassVar[str] = "`<meta> a3 a9 a1 <meta> ?` → `a3 a9 a1 ]`"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("repeat")

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """From the first item to the last."""
        return np.where(exists_nW, np.arange(exists_nW.shape[1]), ABSENT)
