"""The query's own chunk, and the extra tokens that end the chunks before it.

The shape of summary tokens in chunks. Neighbours differ in what the extra tokens themselves may see: `own` is that of
AnLLM, `earlier` that of SSA and UniGist.
"""

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.model.attention.patterns.extra_sees import (
    ExtraSees,
    beyond,
    lasts_beyond,
    needed_beyond,
    said,
    share_beyond,
)


class ChunkMeta(Pattern):
    """The query's own chunk, which an extra token ends, and every earlier extra token of the document.

    `extra_sees`: extra tokens see what others see (`earlier`), their own chunk alone (`own`), or `all` before them.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a . . # # . .
    a . . # # # .
    * . . # # # #
    """

    causal = True

    def __init__(self, *, extra_sees: ExtraSees = "earlier") -> None:
        self.extra_sees = extra_sees

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return (k.place <= q.place) & ((q.chunk == k.chunk) | beyond(self.extra_sees, q, k))

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        last = facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        first = facts.chunk_BK[:, rows].amin(dim=1, keepdim=True)
        return (facts.place_BK <= last) & ((facts.chunk_BK >= first) | needed_beyond(self.extra_sees, facts, rows))

    def lasts(self, facts: Facts) -> Tensor:
        return (facts.chunk_BK == facts.chunk_BK[:, -1:]) | lasts_beyond(self.extra_sees, facts)

    def mean_keys(self, n: int, extra_share: float) -> float:
        c = min(1 / extra_share, n) if extra_share else n  # tokens of a chunk, its extra token among them
        chunks = n / c
        before = (chunks - 1) / 2 * c  # tokens of earlier chunks, on average
        return (c + 1) / 2 + share_beyond(self.extra_sees, extra_share) * before

    def __repr__(self) -> str:
        return f"ChunkMeta({said(self.extra_sees).removeprefix(', ')})"
