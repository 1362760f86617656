"""Recopy: each item as often as its kind says; and back, by `inverse`.

    text      plum nail saw.⏎Q: write by kind⏎A: plum nail nail nail saw saw saw saw saw.
    symbols  a0 a1 a2 ? a0 a1 a1 a1 a2 a2 a2 a2 a2 ]

Items are of three kinds, by their number modulo 3: written once, three and five times. `inverse` gives the long string
and asks for the short one. `backwards` writes the answer from its end. How far an answer's word is from its place in
the string changes from word to word: no fixed distance finds it.
Source: ReCopy, Inv ReCopy and their reversed forms of Ray Chowdhury and Caragea 2023, arXiv 2305.20019; there the items
are ten digits (`pool: 10`). Its grouping of the digits is not known to us; this one is ours.
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

TIMES = np.array([1, 3, 5])


@dataclass(frozen=True)
class Recopy(Rewriting):
    """Write each item as often as its kind says, or undo that."""

    name: ClassVar[str] = "recopy"
    sketch: ClassVar[str] = "`<meta> a0 a1 a2 <meta> ?` → `a0 a1 a1 a1 a2 a2 a2 a2 a2 ]`"
    default_size: ClassVar[tuple[int, int]] = (2, 12)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = phrases("write by kind")

    inverse: bool = False
    """The string has its items as often as their kinds say, the answer once; `n_items` counts those of the string."""
    backwards: bool = False
    """The answer is written from its end."""

    def check(self) -> None:
        """Both options are switches."""
        for switch in ("inverse", "backwards"):
            self.expect(isinstance(getattr(self, switch), bool), switch, "true or false")
        super().check()

    def items(self, draws: Draws, size_n: IntArray) -> IntArray:
        """Items; in the inverse task each with its repetitions, the last one cut off where the string ends."""
        items_nW = super().items(draws, size_n)
        if not self.inverse:
            return items_nW
        ends_nW = np.cumsum(TIMES[items_nW % 3], axis=1)
        at_nW = np.arange(items_nW.shape[1]) + np.zeros_like(items_nW)
        return np.take_along_axis(items_nW, _places_of(at_nW, ends_nW), axis=1)

    def places(self, items_nW: IntArray, exists_nW: NDArray[np.bool_]) -> IntArray:
        """Each place so many times, or the first of each group of equal items that belong together."""
        n, W = items_nW.shape
        times_nW = TIMES[items_nW % 3]
        if self.inverse:
            counts_nW = np.zeros((n, W), dtype=np.int64)
            next_n = np.zeros(n, dtype=np.int64)
            for w in range(W):
                starts_n = next_n == w
                counts_nW[:, w] = starts_n
                next_n = np.where(starts_n, w + times_nW[:, w], next_n)
        else:
            counts_nW = times_nW
        counts_nW = np.where(exists_nW, counts_nW, 0)
        total_n, ends_nW = counts_nW.sum(axis=1), np.cumsum(counts_nW, axis=1)
        at_nA = np.arange(int(total_n.max())) + np.zeros((n, 1), dtype=np.int64)
        written_nA = at_nA < total_n[:, None]
        if self.backwards:
            at_nA = np.where(written_nA, total_n[:, None] - 1 - at_nA, 0)
        return np.where(written_nA, _places_of(at_nA, ends_nW), ABSENT)


def _places_of(at_nA: IntArray, ends_nW: IntArray) -> IntArray:
    """Which group, of those that end before `ends_nW`, each of `at_nA` is in, [n, A]."""
    rows = [np.searchsorted(ends_W, at_A, side="right") for ends_W, at_A in zip(ends_nW, at_nA, strict=True)]
    return np.stack(rows)
