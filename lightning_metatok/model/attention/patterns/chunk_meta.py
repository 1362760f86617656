"""The query's own chunk, and the extra tokens that end the chunks before it.

The shape of summary tokens in chunks; neighbours differ in what the extra tokens themselves may see.
"""

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class ChunkMeta(Pattern):
    """The query's own chunk, which an extra token ends, and every earlier extra token of the document.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a . . # # . .
    a . . # # # .
    * . . # # # #
    """

    causal = True

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return (k.place <= q.place) & ((q.chunk == k.chunk) | k.extra)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        last = facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        first = facts.chunk_BK[:, rows].amin(dim=1, keepdim=True)
        return (facts.place_BK <= last) & ((facts.chunk_BK >= first) | facts.is_extra_BK)

    def lasts(self, facts: Facts) -> Tensor:
        return (facts.chunk_BK == facts.chunk_BK[:, -1:]) | facts.is_extra_BK
