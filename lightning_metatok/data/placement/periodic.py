"""periodic: evenly spaced places, the first after half a period.

a b x c d e f x g h
"""

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, Written, slots_to_mask


class PeriodicPlaces(Placement):
    """Evenly spaced places, the same in every block."""

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        slots_M = (2 * np.arange(blocks.M) + 1) * blocks.T // (2 * max(blocks.M, 1))
        return slots_to_mask(slots_M, len(blocks.source_BS), blocks.T)

    def comes_next(self, text: Written) -> int:
        """Where the share asks for one more, by half a period."""
        return text.n_extra + 0.5 <= text.n_source * text.a_source_token
