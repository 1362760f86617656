"""The first tokens, which attention falls back on (StreamingLLM: Xiao et al. 2023, arXiv 2309.17453)."""

from typing import Annotated

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.options import at_least


class Sinks(Pattern):
    """The first `n` tokens of each document, as keys for all; here n = 1.

      a a * a a *
    a # . . . . .
    a # . . . . .
    * # . . . . .
    a # . . . . .
    a # . . . . .
    * # . . . . .
    """

    def __init__(self, *, n: Annotated[int, at_least(0)] = 4) -> None:
        self.n = n

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return k.in_document < self.n

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return facts.in_document_BK < self.n

    def lasts(self, facts: Facts) -> Tensor:
        return facts.in_document_BK < self.n

    def __repr__(self) -> str:
        return f"Sinks(n={self.n})"
