"""chunk_end: extra tokens behind every c source tokens of a block.

c: 3            a b c x d e f x g h
c: 3, n: 2      a b c x x d e f x x g h
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, Written, slots_to_mask
from lightning_metatok.errors import UserError
from lightning_metatok.options import at_least


class ChunkEnds(Placement):
    """`n` behind every `c` source tokens; they say how many extra tokens there are, too."""

    by_share = False

    def __init__(self, *, c: Annotated[int, at_least(1)] = 16, n: Annotated[int, at_least(1)] = 1) -> None:
        self.c, self.n = c, n

    def count(self, share: int, length: int, *, grows: bool) -> int:
        return self.n * (length // (self.c if grows else self.c + self.n))

    def check(self, T: int) -> None:
        if self.c >= T:
            raise UserError(
                f"data.meta_placement_options.c={self.c}: expected a chunk that a block of {T} positions has room for"
            )

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        chunk_M, place_M = np.divmod(np.arange(blocks.M), self.n)
        slots_M = self.c + (self.c + self.n) * chunk_M + place_M
        return slots_to_mask(slots_M, len(blocks.source_BS), blocks.T)

    def comes_next(self, text: Written) -> int:
        return self.n * (text.n_source % self.c == 0)
