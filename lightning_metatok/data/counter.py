"""Random numbers without state: a 64-bit hash of (seed, counters).

Every random choice of the data pipeline is the hash of what it is for -- the seed, the sample's global index,
the slot -- so that it is the same on any worker, on any rank and after any restart. Built on integer
arithmetic alone, hence also the same with every version of NumPy, which promises that for its raw bit
generators only (NEP 19).

Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators").
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


BLOCK = 1 << 14
"""Numbers that are mixed at once: what is read again and again stays in the cache."""


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bijection of 64-bit integers; each input bit flips each output bit with odds near 1/2."""
    mixed = np.array(values, dtype=np.uint64, order="C", ndmin=1)
    _mix_in_place(mixed)
    return mixed.reshape(np.shape(values))


def _mix_in_place(values: NDArray[np.uint64]) -> None:
    flat, shifted = values.reshape(-1), np.empty(min(values.size, BLOCK), dtype=np.uint64)
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        other = shifted[: len(block)]
        for shift, factor in ((30, FIRST), (27, SECOND), (31, None)):
            np.right_shift(block, np.uint64(shift), out=other)
            np.bitwise_xor(block, other, out=block)
            if factor is not None:
                np.multiply(block, factor, out=block)


def random_bits(seed: int, *counters: ArrayLike) -> NDArray[np.uint64]:
    """Return 64 random bits for each element of the broadcast integers `counters`, a function of all of them.

    The order of the counters matters; the shape is their broadcast shape, of one dimension at least.
    """
    bits = mix(np.array([seed % 2**64], dtype=np.uint64) + GOLDEN)
    for counter in counters:
        # A one-element array, because NumPy reports overflow, which is wanted here, for scalars.
        bits = np.bitwise_xor(bits, np.atleast_1d(np.asarray(counter)).astype(np.uint64, copy=False), order="C")
        bits += GOLDEN
        _mix_in_place(bits)
    return bits


def permutation(n: int, seed: int, counter: int) -> NDArray[np.int64]:
    """Return a uniformly random order of 0 ... n - 1 (shape [n]), a pure function of its arguments."""
    return np.argsort(random_bits(seed, counter, np.arange(n)), kind="stable")
