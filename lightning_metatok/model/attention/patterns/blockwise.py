"""Two blocks of text: XPos's blockwise causal attention (Sun et al. 2022, arXiv 2212.10554)."""

from typing import Annotated

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.options import at_least


class Blockwise(Pattern):
    """The query's own block of `block` tokens of its document, and the whole block before it; here block = 2.

    Extra tokens count as tokens. A query sees `block + 1` to `2 * block` tokens, however long the text is.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * # # # . . .
    a # # # # . .
    a . . # # # .
    * . . # # # #
    """

    causal = True

    def __init__(self, *, block: Annotated[int, at_least(1)] = 128) -> None:
        self.block = block

    def _of(self, in_document: Tensor) -> Tensor:
        return torch.div(in_document, self.block, rounding_mode="floor")

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = self._of(q.in_document) - self._of(k.in_document)
        return (k.place <= q.place) & (back >= 0) & (back <= 1)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        last = facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        block_BK = self._of(facts.in_document_BK)
        lowest, highest = block_BK[:, rows].aminmax(dim=1, keepdim=True)
        return (facts.place_BK <= last) & (block_BK >= lowest - 1) & (block_BK <= highest)

    def lasts(self, facts: Facts) -> Tensor:
        return self._of(facts.in_document_BK) >= self._of(facts.in_document_BK[:, -1:] + 1) - 1

    def mean_keys(self, n: int, extra_share: float) -> float:
        whole, rest = divmod(n, self.block)
        own = whole * self.block * (self.block + 1) / 2 + rest * (rest + 1) / 2
        return (own + self.block * max(0, n - self.block)) / n

    def __repr__(self) -> str:
        return f"Blockwise(block={self.block})"
