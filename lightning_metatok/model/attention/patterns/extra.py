"""Extra tokens as keys, for all or among themselves.

The paper's meta-attention mask P + M (arXiv 2509.16278, section 3) is `Causal() & MetaToMeta()`.
"""

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class Extra(Pattern):
    """Keys that are extra tokens.

      a a * a a *
    a . . # . . #
    a . . # . . #
    * . . # . . #
    a . . # . . #
    a . . # . . #
    * . . # . . #
    """

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return k.extra

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return facts.is_extra_BK

    def lasts(self, facts: Facts) -> Tensor:
        return facts.is_extra_BK


class MetaToMeta(Pattern):
    """Extra tokens see extra tokens, all others see nothing.

      a a * a a *
    a . . . . . .
    a . . . . . .
    * . . # . . #
    a . . . . . .
    a . . . . . .
    * . . # . . #
    """

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return q.extra & k.extra

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return facts.is_extra_BK & facts.is_extra_BK[:, rows].any(dim=1, keepdim=True)

    def lasts(self, facts: Facts) -> Tensor:
        return facts.is_extra_BK
