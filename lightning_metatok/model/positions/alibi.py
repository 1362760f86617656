"""ALiBi, "Train Short, Test Long" (Press, Smith, Lewis, ICLR 2022, arXiv 2108.12409): a penalty a step of distance.

    bias_h(i, j) = -m_h |i - j|        m_h = 2^(-8 h / N), h = 1..N, where the number of heads N is a power of two

For other N: the slopes of the largest power of two P below N, then every other slope of 2P, as many as are missing.

Learned: no; the same in every layer. Options: none.
keep=False: the bias of a pair with a dropped position is 0, as if query and key stood at the same place.
Cost: one multiplication a score, and none of the fused attention kernels; no parameters.
"""

import math

from torch import Tensor

from lightning_metatok.model.positions.base import Sizes
from lightning_metatok.model.positions.score_bias import ScoreBias, distance


class AlibiPositions(ScoreBias):
    """Bias that falls linearly with the distance, at a slope a head."""

    equation = "-m_h d, m_h = 2^(-8h/N)"
    claims = "yes"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.slopes = slopes(sizes.n_heads)

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        # Not a buffer: a model in bfloat16 would round those slopes that are no powers of two.
        slopes_N11 = query_BQ1.new_tensor(self.slopes)[:, None, None]
        return -slopes_N11 * distance(query_BQ1, key_B1K)


def slopes(n_heads: int) -> list[float]:
    """Slope of each head."""
    power = 2 ** int(math.log2(n_heads))
    return _geometric(power) + _geometric(2 * power)[::2][: n_heads - power]


def _geometric(n: int) -> list[float]:
    return [2 ** (-8 * h / n) for h in range(1, n + 1)]
