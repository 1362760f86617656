"""The first tokens, the last ones, and every extra token between: SepLLM's mask (Chen et al. 2024, arXiv 2412.12094).

SepLLM's extra tokens are the text's own, `model.separators`; with meta-tokens in their place and the placement `prefix`
it is UniGist's mask without unit borders (arXiv 2509.15763).
"""

from typing import Annotated

from lightning_metatok.model.attention.patterns.causal import Causal
from lightning_metatok.model.attention.patterns.compose import And, Or
from lightning_metatok.model.attention.patterns.extra import Extra
from lightning_metatok.model.attention.patterns.sinks_window import SinksWindow
from lightning_metatok.options import at_least


class SinksWindowMeta(And):
    """The first `n` tokens of the document, every earlier extra token, and the last `w`; here n = 1 and w = 2.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a # . # # . .
    a # . # # # .
    * # . # . # #
    """

    def __init__(self, *, n: Annotated[int, at_least(0)] = 4, w: Annotated[int, at_least(1)] = 256) -> None:
        self.near = SinksWindow(n=n, w=w)
        super().__init__(Causal(), Or(self.near, Extra()))
        self.n, self.w = n, w

    def mean_keys(self, n: int, extra_share: float) -> float:
        """Sinks and window, and of all other keys up to the query's place the share that is extra."""
        near = self.near.mean_keys(n, extra_share)
        return near + extra_share * ((n + 1) / 2 - near)

    def __repr__(self) -> str:
        return f"SinksWindowMeta(n={self.n}, w={self.w})"
