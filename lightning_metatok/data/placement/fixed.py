"""fixed: the places that the user names, in every block.

slots: [0, 5]      x a b c d x e f
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, slots_to_mask
from lightning_metatok.errors import UserError
from lightning_metatok.options import Rule

DISTINCT = Rule(
    "distinct slots from 0 on", lambda slots: bool(slots) and len(set(slots)) == len(slots) and min(slots) >= 0
)


class FixedPlaces(Placement):
    """`slots`: places in the finished block, from 0 on; they say how many extra tokens there are, too."""

    by_share = False
    none_at_0 = False
    any_length = False

    def __init__(self, *, slots: Annotated[list[int], DISTINCT]) -> None:
        self.slots = np.asarray(slots, dtype=np.int64)

    def count(self, share: int, length: int, *, grows: bool) -> int:
        return len(self.slots)

    def check(self, T: int) -> None:
        if (last := int(self.slots.max())) >= T:
            raise UserError(f"data.meta_placement_options.slots: slot {last} lies outside a block of {T} positions")

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        return slots_to_mask(self.slots, len(blocks.source_BS), blocks.T)
