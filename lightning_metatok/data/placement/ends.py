"""prefix and suffix: n extra tokens before the text of a block, or behind it.

prefix, n: 2      x x a b c d e f g h        registers: all later tokens see them, and they see nothing
suffix, n: 2      a b c d e f g h x x        pauses before an answer: they see all before them
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, slots_to_mask
from lightning_metatok.errors import UserError
from lightning_metatok.options import at_least


class Prefix(Placement):
    """`n` extra tokens first."""

    by_share = False

    def __init__(self, *, n: Annotated[int, at_least(1)] = 4) -> None:
        self.n = n

    def count(self, share: int, length: int, *, grows: bool) -> int:
        return self.n

    def check(self, T: int) -> None:
        if self.n >= T:
            raise UserError(
                f"data.meta_placement_options.n={self.n}: expected fewer extra tokens than a block of {T} positions has"
            )

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        return slots_to_mask(self.first(blocks.T) + np.arange(blocks.M), len(blocks.source_BS), blocks.T)

    def first(self, T: int) -> int:
        """The slot that they begin at."""
        return 0


class Suffix(Prefix):
    """`n` extra tokens last."""

    def first(self, T: int) -> int:
        return T - self.n
