"""All tokens up to the query's own place: the pattern of a language model."""

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class Causal(Pattern):
    """Keys up to the query's own place.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a # # # # . .
    a # # # # # .
    * # # # # # #
    """

    causal = True
    needs_mask = False

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return k.place <= q.place

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return facts.place_BK <= facts.place_BK[:, rows].amax(dim=1, keepdim=True)

    def mean_keys(self, n: int, extra_share: float) -> float:
        return (n + 1) / 2
