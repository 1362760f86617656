"""The last tokens alone (Child et al. 2019, arXiv 1904.10509; Beltagy et al. 2020, arXiv 2004.05150)."""

from typing import Annotated

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.options import at_least


class Window(Pattern):
    """The query and the `w - 1` tokens before it, extra tokens among them; here w = 3.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a . # # # . .
    a . . # # # .
    * . . . # # #
    """

    causal = True

    def __init__(self, *, w: Annotated[int, at_least(1)] = 256) -> None:
        self.w = w

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = q.place - k.place
        return (back >= 0) & (back < self.w)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        first, last = facts.place_BK[:, rows].aminmax(dim=1, keepdim=True)
        return (facts.place_BK <= last) & (facts.place_BK > first - self.w)

    def lasts(self, facts: Facts) -> Tensor:
        return facts.place_BK > facts.place_BK[:, -1:] + 1 - self.w

    def mean_keys(self, n: int, extra_share: float) -> float:
        w = min(self.w, n)
        return w - w * (w - 1) / 2 / n

    def __repr__(self) -> str:
        return f"Window(w={self.w})"
