"""All tokens, on both sides: the pattern of an encoder, which fills in what is hidden and writes nothing."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class Bidirectional(Pattern):
    """All keys, before and behind the query's own place.

      a a * a a *
    a # # # # # #
    a # # # # # #
    * # # # # # #
    a # # # # # #
    a # # # # # #
    * # # # # # #
    """

    cannot: ClassVar[Mapping[str, str]] = {"cache": "what a token sees comes later, too"}

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return torch.ones_like(k.place, dtype=torch.bool)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return torch.ones_like(facts.place_BK, dtype=torch.bool)

    def mean_keys(self, n: int, extra_share: float) -> float:
        return float(n)
