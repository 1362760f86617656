"""The first tokens and the last ones (StreamingLLM: Xiao et al. 2023, arXiv 2309.17453).

With the placement `prefix` the first tokens are extra tokens, which the model learns to use so: registers, and the meta
tokens of Hymba (arXiv 2411.13676).
"""

from typing import Annotated

from lightning_metatok.model.attention.patterns.causal import Causal
from lightning_metatok.model.attention.patterns.compose import And, Or
from lightning_metatok.model.attention.patterns.sinks import Sinks
from lightning_metatok.model.attention.patterns.window import Window
from lightning_metatok.options import at_least


class SinksWindow(And):
    """The first `n` tokens of the document, the query and the `w - 1` tokens before it; here n = 1 and w = 2.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a # . # # . .
    a # . . # # .
    * # . . . # #
    """

    def __init__(self, *, n: Annotated[int, at_least(0)] = 4, w: Annotated[int, at_least(1)] = 256) -> None:
        super().__init__(Causal(), Or(Sinks(n=n), Window(w=w)))
        self.n, self.w = n, w

    def mean_keys(self, n: int, extra_share: float) -> float:
        """Counted within one document: each query sees w of all before it, and the sinks before these."""
        w, sinks = min(self.w, n), min(self.n, n)
        before = sum(min(sinks, max(0, i + 1 - w)) for i in range(min(n, w + sinks))) + max(0, n - w - sinks) * sinks
        return w - w * (w - 1) / 2 / n + before / n

    def __repr__(self) -> str:
        return f"SinksWindow(n={self.n}, w={self.w})"
