"""Tokens at a distance that grows layer by layer: RegularGPT's sliding dilated attention (arXiv 2305.03796).

Chi, Fan, Rambow and Rudnicky 2023, "Transformer Working Memory Enables Regular Language Reasoning and Natural Language
Length Extrapolation". Layers form a tree of `chunk` branches over the last `chunk ** n_layers` tokens.
"""

from typing import Annotated

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.options import at_least

FARTHEST = 2**40
"""Beyond any text, and far from what an integer holds."""


class Dilated(Pattern):
    """In layer l the query and the tokens `chunk ** l`, 2 `chunk ** l`, ... before it, `chunk` in all; here chunk = 2.

    Drawn in layer 1. Layer 0 has the last `chunk` tokens, and each layer reaches `chunk` times as far as the last.
    Extra tokens count as tokens. The paper also shares the weights of all layers (`model.shared_layers=true`) and has
    as many layers as the text is long: log T to the base `chunk`; here `model.n_layers` stays what it is.

      a a * a a *
    a # . . . . .
    a . # . . . .
    * # . # . . .
    a . # . # . .
    a . . # . # .
    * . . . # . #
    """

    causal = True

    def __init__(self, *, chunk: Annotated[int, at_least(2)] = 4) -> None:
        self.chunk, self.stride = chunk, 1
        self._layers: dict[int, Dilated] = {}

    @property
    def _reach(self) -> int:
        """Distance of the farthest key."""
        return min((self.chunk - 1) * self.stride, FARTHEST)

    def at(self, layer: int, n_layers: int) -> Pattern:
        if layer == 0:
            return self
        if layer not in self._layers:
            self._layers[layer] = Dilated(chunk=self.chunk)
            self._layers[layer].stride = min(self.chunk**layer, FARTHEST)
        return self._layers[layer]

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = q.place - k.place
        return (back >= 0) & (back <= self._reach) & (back % self.stride == 0)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        """The first row that is no earlier and whole strides away is one of these, and near enough."""
        first, last = facts.place_BK[:, rows].aminmax(dim=1, keepdim=True)
        back = (first - facts.place_BK).clamp(min=0)
        strides = torch.div(back + self.stride - 1, self.stride, rounding_mode="floor")
        return (facts.place_BK + strides * self.stride <= last) & (strides * self.stride <= self._reach)

    def lasts(self, facts: Facts) -> Tensor:
        return facts.place_BK + self._reach > facts.place_BK[:, -1:]

    def mean_keys(self, n: int, extra_share: float) -> float:
        keys = min(self.chunk, (n - 1) // self.stride + 1)
        return keys - self.stride * keys * (keys - 1) / 2 / n

    def __repr__(self) -> str:
        return f"Dilated(chunk={self.chunk}{'' if self.stride == 1 else f', stride={self.stride}'})"
