"""What the queries of one pass may see: a rule, the facts of all keys, and which of them are the queries.

Backends ask it for what they need: the whole table (`mask`), rows of it, or for a block of rows the few keys that the
rule names (`blocks`). A table of T x T is made by those alone that ask for one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns.base import Pattern


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows and the keys that they need."""

    rows: slice
    """Of the queries."""
    index_BK: Tensor
    """Which keys, ascending, [B or 1, K']; samples that need fewer than others have some that `mask` hides."""
    mask_BQK: Tensor
    """Bool [B or 1, Q', K']: which of them each row sees."""

    @cached_property
    def blind_B1Q1(self) -> Tensor | None:
        """Rows that see nothing; None: all see something."""
        blind = ~self.mask_BQK.any(dim=-1)[:, None, :, None]
        return blind if bool(blind.any()) else None

    def added(self, dtype: torch.dtype) -> Tensor:
        """The mask as what is added to scores, [B or 1, 1, Q', K']; rows that see nothing see all, lest they be NaN."""
        if dtype not in self._added:
            seen = self.mask_BQK.unsqueeze(1)
            seen = seen if self.blind_B1Q1 is None else seen | self.blind_B1Q1
            self._added[dtype] = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)
        return self._added[dtype]

    @cached_property
    def _added(self) -> dict[torch.dtype, Tensor]:
        return {}


@dataclass(frozen=True, eq=False)
class Sight:
    """One for all layers that see the same."""

    rule: Pattern
    facts: Facts
    queries: slice

    @property
    def n_queries(self) -> int:
        """Number of queries, Q."""
        return self.queries.stop - self.queries.start

    @cached_property
    def mask(self) -> Tensor:
        """The whole table, bool [B or 1, 1, Q, K]."""
        return self.rows(0, self.n_queries)

    def rows(self, first: int, end: int) -> Tensor:
        """Some rows of the table, bool [B or 1, 1, end - first, K]."""
        return self.rule.mask(self.facts, self._among_keys(first, end)).unsqueeze(1)

    def blocks(self, size: int) -> list[Block]:
        """The table in blocks of `size` rows, each with the keys that it needs alone."""
        if size not in self._made:
            self._made[size] = list(self._blocks(size))
        return self._made[size]

    def _blocks(self, size: int) -> Iterator[Block]:
        for first in range(0, self.n_queries, size):
            end = min(first + size, self.n_queries)
            rows = self._among_keys(first, end)
            needed_BK = self.rule.needed(self.facts, rows).expand(-1, self.facts.n)
            index_BK, there_BK = compact(needed_BK)
            if len(index_BK) == 1:
                table = self.rule.allowed(self.facts.queries(rows), self.facts.keys(index_BK[0]))
            else:
                chosen = self.facts.take(index_BK)
                table = self.rule.allowed(self.facts.queries(rows), chosen.keys())
            table = table.expand(max(len(table), len(there_BK)), end - first, index_BK.shape[1])
            yield Block(slice(first, end), index_BK, table & there_BK.unsqueeze(1))

    def area(self, size: int) -> int:
        """Pairs of a sample that `blocks` look at."""
        return sum(block.mask_BQK.shape[1] * block.mask_BQK.shape[2] for block in self.blocks(size))

    @cached_property
    def _made(self) -> dict[int, list[Block]]:
        return {}

    def _among_keys(self, first: int, end: int) -> slice:
        return slice(self.queries.start + first, self.queries.start + end)


def compact(chosen_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each row is True, ascending, [B, most], and which of these are real: rows have different numbers."""
    counts_B = chosen_BK.sum(dim=1)
    most = max(1, int(counts_B.max()))  # a kernel wants a key, be it one that nobody sees
    row_R, at_R = chosen_BK.nonzero(as_tuple=True)
    slot_R = (chosen_BK.cumsum(dim=1) - 1)[row_R, at_R]
    index_BK = torch.zeros(len(chosen_BK), most, dtype=torch.int64, device=chosen_BK.device)
    index_BK[row_R, slot_R] = at_R
    return index_BK, torch.arange(most, device=chosen_BK.device) < counts_B.unsqueeze(1)
