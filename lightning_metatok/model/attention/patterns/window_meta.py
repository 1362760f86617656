"""The last tokens, and every earlier extra token: distant text is reached through extra tokens alone."""

from typing import Annotated

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
from lightning_metatok.options import at_least


class WindowMeta(Pattern):
    """The query, the `w - 1` tokens before it, and every earlier extra token of the document; here w = 2.

    `extra_sees`: extra tokens see what others see (`earlier`), their own window alone (`own`), or `all` before them.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * . # # . . .
    a . . # # . .
    a . . # # # .
    * . . # . # #
    """

    causal = True

    def __init__(self, *, w: Annotated[int, at_least(1)] = 256, extra_sees: ExtraSees = "earlier") -> None:
        self.w, self.extra_sees = w, extra_sees

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = q.place - k.place
        return (back >= 0) & ((back < self.w) | beyond(self.extra_sees, q, k))

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        first, last = facts.place_BK[:, rows].aminmax(dim=1, keepdim=True)
        far = needed_beyond(self.extra_sees, facts, rows)
        return (facts.place_BK <= last) & ((facts.place_BK > first - self.w) | far)

    def lasts(self, facts: Facts) -> Tensor:
        return (facts.place_BK > facts.place_BK[:, -1:] + 1 - self.w) | lasts_beyond(self.extra_sees, facts)

    def mean_keys(self, n: int, extra_share: float) -> float:
        w = min(self.w, n)
        before = (n - w) * (n - w + 1) / 2  # pairs beyond the windows
        return w - w * (w - 1) / 2 / n + share_beyond(self.extra_sees, extra_share) * before / n

    def __repr__(self) -> str:
        return f"WindowMeta(w={self.w}{said(self.extra_sees)})"
