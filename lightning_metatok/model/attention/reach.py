"""How far back a token depends on text: through a layer's pattern, and through all layers one behind the other.

    window of 3, two layers        a b c d e f g      the last token sees e f g, and these saw c d e f
                                       # # # # #      reach: 4 tokens back, with no memory at all

A token that is reached is not thereby remembered: a path through L layers must be learned hop by hop, and all that it
carries stands in one state at every hop. Where extra tokens make the difference, they are the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, evenly
from lightning_metatok.model.attention.patterns import Pattern

BLOCK = 512
"""Rows of a table that are looked at at once."""


@dataclass(frozen=True)
class Reach:
    """How many source tokens before the last token of a block it may depend on.

    Attributes:
        layer: of one layer, along text alone. text: of all layers, along text alone. all: along extra tokens, too.
        n: source tokens before it that there are.
    """

    layer: int
    text: int
    all: int
    n: int

    def __str__(self) -> str:
        def named(n: int) -> str:
            return "all" if n >= self.n else f"{n:,}"

        return (
            f"of {self.n:,} source tokens before it the last one sees {named(self.layer)} in one layer, depends on "
            f"{named(self.text)} through all layers, and on {named(self.all)} by way of meta-tokens, too; what is "
            "reached is not thereby remembered"
        )


def even(n: int, share: float) -> Tensor:
    """Return a block of `n` tokens, bool [n]: `share` of them are extra tokens at even distances, the last is none."""
    extra_T = evenly(max(n, 1), share)
    extra_T[-1] = False
    return extra_T


def reach(layers: Sequence[Sequence[Pattern]], extra_T: Tensor) -> Reach:
    """Return the reach of the last source token of a block.

    Args:
        layers: what the attentions of each layer let see, one behind the other.
        extra_T: bool, the extra tokens of the block.
    """
    facts, source_T = Facts.of(len(extra_T), extra_T[None]), ~extra_T
    last = int(source_T.nonzero()[-1])

    def behind(layers: Sequence[Sequence[Pattern]], allowed_T: Tensor) -> int:
        reached_T = torch.zeros_like(extra_T)
        reached_T[last] = True
        alike = all(rules == layers[0] for rules in layers)
        for rules in reversed(layers):
            before_T = reached_T
            for rule in reversed(rules):
                reached_T = _seen(rule, facts, reached_T) & allowed_T
            if alike and torch.equal(before_T, reached_T):  # and so it stays: a deep model starts no later
                break
        return int((reached_T & source_T)[:last].sum())

    return Reach(
        layer=behind([layers[0]], source_T),
        text=behind(layers, source_T),
        all=behind(layers, torch.ones_like(extra_T)),
        n=int(source_T[:last].sum()),
    )


def _seen(pattern: Pattern, facts: Facts, rows_T: Tensor) -> Tensor:
    """What some of these rows see, and they themselves."""
    seen_T = rows_T.clone()
    for first in range(0, facts.n, BLOCK):
        rows = slice(first, min(first + BLOCK, facts.n))
        if rows_T[rows].any():
            seen_T |= pattern.mask(facts, rows)[0][rows_T[rows]].any(dim=0)
    return seen_T
