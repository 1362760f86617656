"""A window of whole chunks, and behind it the extra tokens of the chunks that have left it.

KSA (Kwai Summary Attention, arXiv 2604.24432): text is read as text while its chunk is near, and through the extra
tokens that sum it up afterwards, never both ways; each of these holds its own chunk alone. Its published settings are
chunks of 8 tokens and a window of 128 chunks, in every fourth layer of 1,024. Its published cache of generation keeps
other rows than training sees in these wider layers; here one rule says both.
"""

from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.model.attention.patterns.extra_sees import ExtraSees
from lightning_metatok.options import at_least


class ChunkWindow(Pattern):
    """The query's own chunk, the text of the `back` chunks before it, and of older chunks the extra tokens.

    Drawn with back = 1.

    `extra_sees`: extra tokens see their own chunk alone (`own`), earlier extra tokens, too (`earlier`), or `all` before
    them. `read: false`: text sees no extra token, which says what they do without being read. Every `wide_every`-th
    layer has a window of `wide_back` chunks. A run of extra tokens ends a chunk together.

      a a * a a * a a * a
    a # . . . . . . . . .
    a # # . . . . . . . .
    * # # # . . . . . . .
    a # # . # . . . . . .
    a # # . # # . . . . .
    * . . . # # # . . . .
    a . . # # # . # . . .
    a . . # # # . # # . .
    * . . . . . . # # # .
    a . . # . . # # # . #
    """

    causal = True
    example = Facts.of(10, torch.tensor([[False, False, True] * 3 + [False]]))

    def __init__(
        self,
        *,
        back: Annotated[int, at_least(0)] = 16,
        extra_sees: ExtraSees = "own",
        read: bool = True,
        wide_every: Annotated[int | None, at_least(1)] = None,
        wide_back: Annotated[int | None, at_least(0)] = None,
    ) -> None:
        self.back, self.extra_sees, self.read = back, extra_sees, read
        self.wide_every, self.wide_back = wide_every, wide_back
        if (wide_every is None) != (wide_back is None):
            missing = "wide_back" if wide_back is None else "wide_every"
            raise UserError(f"model.pattern_options.{missing}: expected with the other one of wide_every and wide_back")
        if wide_back is not None and wide_back < back:
            raise UserError(f"model.pattern_options.wide_back={wide_back}: expected back={back} chunks or more")

    @cached_property
    def _wide(self) -> "ChunkWindow":
        assert self.wide_back is not None, "there are wide layers"
        return ChunkWindow(back=self.wide_back, extra_sees=self.extra_sees, read=self.read)

    def at(self, layer: int, n_layers: int) -> Pattern:
        if self.wide_every is None:
            return self
        if self.wide_every > n_layers:
            raise UserError(
                f"model.pattern_options.wide_every={self.wide_every}: expected at most model.n_layers={n_layers}"
            )
        return self._wide if (layer + 1) % self.wide_every == 0 else self

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        back = q.segment - k.segment
        text = back <= self.back
        text = torch.where(k.extra, ~text, text) if self.read else text & ~k.extra
        if self.extra_sees == "all":
            return (k.place <= q.place) & (text | q.extra)
        own = back == 0
        return (k.place <= q.place) & torch.where(q.extra, own | k.extra if self.extra_sees == "earlier" else own, text)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        last = facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        first = facts.segment_BK[:, rows].amin(dim=1, keepdim=True)
        needed = (facts.segment_BK >= first - self.back) | self._far(facts)
        if self.extra_sees == "all":
            needed = needed | facts.is_extra_BK[:, rows].any(dim=1, keepdim=True)
        return (facts.place_BK <= last) & needed

    def lasts(self, facts: Facts) -> Tensor:
        if self.extra_sees == "all":
            return torch.ones_like(facts.place_BK, dtype=torch.bool)
        return (facts.segment_BK >= facts.segment_BK[:, -1:] - self.back) | self._far(facts)

    def _far(self, facts: Facts) -> Tensor:
        """Keys that are seen from any distance."""
        seen = self.read or self.extra_sees != "own"
        return facts.is_extra_BK if seen else torch.zeros_like(facts.is_extra_BK)

    def mean_keys(self, n: int, extra_share: float) -> float:
        """Of chunks of equal length, an extra token each."""
        f = extra_share
        if not f:
            return (n + 1) / 2
        c, chunks = 1 / f, n * f
        near = min(self.back, chunks)
        windows = max(0.0, near * (near - 1) / 2) + (chunks - near) * self.back  # whole chunks, over all of them
        older = max(0.0, (chunks - near) * (chunks - near - 1) / 2) if self.read else 0
        text = c / 2 + ((c - 1) * windows + older) / chunks
        extra = {"own": c, "earlier": c + max(0.0, chunks - 1) / 2, "all": n / 2}[self.extra_sees]
        return (1 - f) * text + f * extra

    def __repr__(self) -> str:
        # `own` is the rule here, not what differs.
        parts = [f"back={self.back}", *([] if self.read else ["read=False"])]
        if self.extra_sees != "own":
            parts.append(f"extra_sees={self.extra_sees}")
        if self.wide_every is not None:
            parts += [f"wide_every={self.wide_every}", f"wide_back={self.wide_back}"]
        return f"ChunkWindow({', '.join(parts)})"
