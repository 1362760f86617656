"""Named lists as words, for the tasks whose prompts are made of them.

Tools : OPEN hammer , wrench , level CLOSE .        in symbols: L9 OPEN a1 a4 a5 CLOSE
"""

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN, Lexicon
from lightning_metatok.tasks.task import IntArray

PHRASES = {"colon": ("", ":"), "comma": ("", ","), "stop": ("", ".")}
"""What a task of lists has among its `phrases`."""

ITEMS = slice(4, -2, 2)
"""Where the items of a list stand among its words."""


def list_words(lexicon: Lexicon, names_nN: IntArray, items_nNK: IntArray, exists_nNK: NDArray[np.bool_]) -> IntArray:
    """Return the words of `N` lists in each prompt, int64 [n, N, 2 K + 5]; items that do not exist are ABSENT."""
    n, N, K = items_nNK.shape
    word = lexicon.phrase
    commas_nNK = np.where(exists_nNK & (np.arange(K) > 0), word["comma"], ABSENT)
    items_nNX = np.stack([commas_nNK, np.where(exists_nNK, items_nNK, ABSENT)], axis=3).reshape(n, N, 2 * K)
    before, after = [word["colon"], OPEN], [CLOSE, word["stop"]]
    parts = [names_nN[..., None], np.broadcast_to(before, (n, N, 2)), items_nNX, np.broadcast_to(after, (n, N, 2))]
    return np.concatenate([lexicon.names[parts[0]], *parts[1:]], axis=2)
