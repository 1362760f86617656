"""random: M places out of T, uniform without replacement, others in each epoch. The paper's rule.

a b x c d e f x g h
"""

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.placement.base import Placement, Sources, Written, smallest


class RandomPlaces(Placement):
    """Uniformly random places."""

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        return smallest(blocks.bits(blocks.T), blocks.M)

    def comes_next(self, text: Written) -> int:
        """Behind each token with the probability that gives as many."""
        return text.draw < text.a_source_token
