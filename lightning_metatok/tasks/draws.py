"""Random choices for many examples at once, each a pure function of (seed, split, number of the example, purpose).

Example 7 is therefore the same whether it is made alone, in a batch, by another worker or on another rank; and
changing one choice (where marks go) leaves the others as they were.
"""

import zlib
from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.counter import random_bits

ANEW = 0x616E6577
"""Keeps the second choice of a purpose apart from the first."""
AT_ONCE = 128
"""Choices among a pool that are made at once: their random numbers stay in the cache."""


class Draws:
    """The choices of the examples with the numbers `index_n`; `attempt` counts how often they were drawn anew.

    `anew`: purposes whose choices are others than they would be, while all the rest stays: see `tasks.pairs`.
    """

    def __init__(self, seed: int, split: str, index_n: ArrayLike, attempt: int = 0, anew: Collection[str] = ()) -> None:
        self.split, self.index_n, self.anew = split, np.asarray(index_n, dtype=np.int64), anew
        self._state_n = random_bits(seed, zlib.crc32(split.encode()), self.index_n, attempt)

    @property
    def n(self) -> int:
        """How many examples these are."""
        return len(self.index_n)

    def bits(self, purpose: str, *shape: int) -> NDArray[np.uint64]:
        """Return 64 random bits, uint64 [n, *shape]."""
        slots = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(1, *shape)
        return self._bits_at(purpose, np.arange(self.n), slots)

    def _bits_at(self, purpose: str, row_r: IntArray, slots: IntArray) -> NDArray[np.uint64]:
        """The bits of the rows `row_r` [r] in `slots` [r or 1, ...]."""
        state_n = random_bits(ANEW, self._state_n) if purpose in self.anew else self._state_n
        states = state_n[row_r].reshape(-1, *(1 for _ in slots.shape[1:]))
        return random_bits(zlib.crc32(purpose.encode()), states, slots)

    def integers(self, purpose: str, low: ArrayLike, high: ArrayLike, *shape: int) -> IntArray:
        """Return uniform integers from `low` to `high`, both included, int64 [n, *shape].

        The limits broadcast against that shape; a limit of one number an example has shape [n, 1, ...].
        """
        low_, high_ = np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)
        width = (high_ - low_ + 1).astype(np.uint64)
        return (self.bits(purpose, *shape) % width).astype(np.int64) + low_

    def choose(
        self,
        purpose: str,
        k: int,
        pool: int,
        *shape: int,
        where: NDArray[np.bool_] | None = None,
    ) -> IntArray:
        """Return `k` different numbers below `pool` in random order, int64 [n, *shape, k].

        Where `where`, bool [n, *shape], is False, nothing is drawn, which saves time: the numbers are 0.
        """
        assert k <= pool, f"{k} of {pool}"
        if where is None:
            where = np.ones((self.n, *shape), dtype=bool)
        chosen = np.zeros((*where.shape, k), dtype=np.int64)
        row_r, place_r = np.nonzero(where.reshape(self.n, -1))
        drawn_rk = np.empty((len(row_r), k), dtype=np.int64)
        for start in range(0, len(row_r), AT_ONCE):
            block = slice(start, start + AT_ONCE)
            slots = place_r[block, None] * pool + np.arange(pool)
            drawn_rk[block] = np.argsort(self._bits_at(purpose, row_r[block], slots), axis=-1)[:, :k]
        chosen[where] = drawn_rk
        return chosen

    def shuffle(self, purpose: str, present_nm: NDArray[np.bool_]) -> IntArray:
        """Return a random order of the columns that are present, int64 [n, m]: those first, then the rest."""
        keys = self.bits(purpose, present_nm.shape[1]) >> np.uint64(1)
        return np.argsort(np.where(present_nm, keys, np.uint64(2**64 - 1)), axis=1, kind="stable")
