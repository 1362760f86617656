"""Behind a run of extra tokens nothing before it is seen but extra tokens (Mu et al. 2023, arXiv 2304.08467)."""

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class Gist(Pattern):
    """As `ChunkMeta`, where a chunk ends with a run of extra tokens, each of which sees the whole chunk.

      a a * * a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    * # # # # . .
    a . . # # # .
    * . . # # # #
    """

    causal = True
    example = Facts.of(6, torch.tensor([[False, False, True, True, False, True]]))

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return (k.place <= q.place) & ((q.segment == k.segment) | k.extra)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        last = facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        first = facts.segment_BK[:, rows].amin(dim=1, keepdim=True)
        return (facts.place_BK <= last) & ((facts.segment_BK >= first) | facts.is_extra_BK)

    def lasts(self, facts: Facts) -> Tensor:
        return (facts.segment_BK == facts.segment_BK[:, -1:]) | facts.is_extra_BK
