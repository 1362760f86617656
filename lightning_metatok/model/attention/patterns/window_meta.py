"""The last tokens, and every earlier extra token: distant text is reached through extra tokens alone."""

from typing import Annotated

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.options import at_least


class WindowMeta(Pattern):
    """The query, the `w - 1` tokens before it, and every earlier extra token of the document; here w = 2.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * . # # . . .
    a . . # # . .
    a . . # # # .
    * . . # . # #
    """

    causal = True

    def __init__(self, *, w: Annotated[int, at_least(1)] = 256) -> None:
        self.w = w

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = q.place - k.place
        return (back >= 0) & ((back < self.w) | k.extra)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        first, last = facts.place_BK[:, rows].aminmax(dim=1, keepdim=True)
        return (facts.place_BK <= last) & ((facts.place_BK > first - self.w) | facts.is_extra_BK)

    def lasts(self, facts: Facts) -> Tensor:
        return (facts.place_BK > facts.place_BK[:, -1:] + 1 - self.w) | facts.is_extra_BK

    def __repr__(self) -> str:
        return f"WindowMeta(w={self.w})"
