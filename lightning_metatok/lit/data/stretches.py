"""Which stretches of a prepared text are scored: spread evenly over it, the same at every length."""

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data import PackedBlocks, TokenStore
from lightning_metatok.data.splits import Split


def spread_blocks(store: TokenStore, split: Split, length: int, most: int | None) -> PackedBlocks:
    """Return all blocks of `split`, or `most` blocks that are spread evenly over it."""
    every = PackedBlocks(store, split, length)
    if most is None or most >= len(every):
        return every
    return PackedBlocks(store, split, length, _spread(most, store.n_tokens(split) - length))


def same_stretches(
    store: TokenStore, split: Split, length: int, *, window: int, windows: int, parts: int
) -> PackedBlocks | None:
    """Return `parts` blocks out of each of `windows` stretches of `window` tokens; None where the text has no stretch.

    The stretches depend neither on `length` nor on `parts`.
    """
    n_tokens = store.n_tokens(split)
    windows = min(windows, n_tokens // window)
    if windows == 0:
        return None
    starts = (_spread(windows, n_tokens - window)[:, None] + np.arange(parts) * length).reshape(-1)
    return PackedBlocks(store, split, length, starts)


def _spread(count: int, end: int) -> NDArray[np.int64]:
    """`count` whole numbers, evenly spread from 0 to `end`."""
    return np.linspace(0, end, count).astype(np.int64)
