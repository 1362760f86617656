"""Sandwich (Chi, Fan, Rudnicky, Ramadge, ACL 2023, arXiv 2212.10356): inner products of sinusoidal positions.

    bias_h(i, j) = c_h (sum_l cos((i - j) / 10000^(2 l / dim)) - dim / 2)       c_h = 8 h / N, h = 1..N

The sum is what two sinusoidal embeddings of width `dim` give, and falls with the distance. dim / 2, its value at
distance 0, is subtracted here, which softmax does not see: it makes 0 the bias at distance 0.

Learned: no; the same in every layer. Defaults: dim 128. No code of the authors was found; two things that the paper
leaves to the reader are options: `first` is the first l of the dim / 2 in the sum (1), and `heads` says whether the sum
is multiplied by c_h (the default) or divided.
keep=False: the bias of a pair with a dropped position is 0, as at distance 0.
Cost: dim multiply-adds a score, as a product of two T x dim matrices; no parameters.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor

from lightning_metatok.model.positions.base import Sizes
from lightning_metatok.model.positions.options import Rule
from lightning_metatok.model.positions.score_bias import ScoreBias

EVEN = Rule("an even number above 0", lambda value: value > 0 and value % 2 == 0)


class SandwichPositions(ScoreBias):
    """Bias that is a sum of cosines of the distance."""

    equation = "c_h (sum_l cos(d w_l) - dim / 2)"
    claims = "yes"

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: Annotated[int, EVEN] = 128,
        first: Literal[1, 0] = 1,
        heads: Literal["multiply", "divide"] = "multiply",
    ) -> None:
        super().__init__()
        ratios = [8 * h / sizes.n_heads for h in range(1, sizes.n_heads + 1)]
        self.factors = ratios if heads == "multiply" else [1 / ratio for ratio in ratios]
        self.frequencies = [10000 ** (-2 * index / dim) for index in range(first, first + dim // 2)]

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        # In float64: the sum lies near dim / 2, what is left of it once that is subtracted may be small, and head N
        # multiplies it by 8.
        frequencies_l = torch.tensor(self.frequencies, dtype=torch.float64, device=query_BQ1.device)
        query_BQl, key_BKl = query_BQ1 * frequencies_l, key_B1K.transpose(1, 2) * frequencies_l
        # cos(a - b) = cos a cos b + sin a sin b: a matrix product instead of a cosine for every pair and frequency.
        query, key = (torch.cat((x.cos(), x.sin()), dim=-1) for x in (query_BQl, key_BKl))
        with torch.autocast(query.device.type, enabled=False):
            fallen_BQK = (query @ key.transpose(1, 2) - len(self.frequencies)).to(query_BQ1.dtype)
        factors_N11 = query_BQ1.new_tensor(self.factors)[:, None, None]
        return factors_N11 * fallen_BQK.unsqueeze(1)
