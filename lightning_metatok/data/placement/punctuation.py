"""punctuation: behind M uniformly chosen tokens out of those that are punctuation.

    a . x b c , x d e

Where a block has fewer, the rest go behind uniformly chosen other source tokens, so that each block has exactly M.
"""

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, Written, behind, smallest

LAST_BIT = np.uint64(1 << 63)


class BehindPunctuation(Placement):
    """Behind punctuation, and behind other tokens where there is too little of it."""

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        keys_BS = blocks.bits(blocks.S) >> np.uint64(1)
        keys_BS = keys_BS | np.where(np.isin(blocks.source_BS, blocks.after_ids), np.uint64(0), LAST_BIT)
        return behind(smallest(keys_BS, blocks.M), blocks.T)

    def comes_next(self, text: Written) -> int:
        """Behind punctuation, where there are fewer so far than the share asks for."""
        return text.last_id in text.after_ids and text.n_extra < text.n_source * text.a_source_token
