"""What is known of each token before any layer runs: all that a pattern may ask.

    place      0 1 2 3 4 5       order: later tokens have larger ones
    extra      . . * . . *       whether it is an extra token (a meta-token)
    document   0 0 0 1 1 1       tokens of different ones do not see each other
    chunk      0 0 0 1 1 1       an extra token ends its chunk, and so does the end of a document

The facts of a pass are those of its keys; its queries are some rows of them. In generation the cache keeps them, so
that the row of a token is the same whether it is read alone or with all others.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """Facts of K tokens; each is [B, K], or [1, K] where all samples share it."""

    place_BK: Tensor
    extra_BK: Tensor | None = None
    """Bool; None: there are no extra tokens."""
    document_BK: Tensor | None = None
    """None: one document a sample."""

    @classmethod
    def of(
        cls,
        n: int,
        extra_BK: Tensor | None = None,
        document_BK: Tensor | None = None,
        *,
        first: int = 0,
        device: torch.device | None = None,
    ) -> "Facts":
        """Facts of `n` tokens that stand next to each other, from place `first` on."""
        return cls(torch.arange(first, first + n, device=device)[None], extra_BK, document_BK)

    def then(self, later: "Facts") -> "Facts":
        """These tokens and later ones; both have extra tokens said, and one document a sample."""
        assert self.extra_BK is not None, "say which tokens are extra"
        assert later.extra_BK is not None, "say which tokens are extra"
        assert self.document_BK is None, "one document a sample"
        assert later.document_BK is None, "one document a sample"
        return Facts(
            torch.cat((self.place_BK, later.place_BK), dim=1), torch.cat((self.extra_BK, later.extra_BK), dim=1)
        )

    @property
    def n(self) -> int:
        """Number of tokens, K."""
        return self.place_BK.shape[1]

    @cached_property
    def is_extra_BK(self) -> Tensor:
        """`extra_BK`, False everywhere where there are none."""
        return torch.zeros_like(self.place_BK, dtype=torch.bool) if self.extra_BK is None else self.extra_BK

    @cached_property
    def starts_BK(self) -> Tensor:
        """Whether a token is the first of its document."""
        first_1K = torch.zeros_like(self.place_BK, dtype=torch.bool)
        first_1K[:, :1] = True
        if self.document_BK is None:
            return first_1K
        changes_BK = self.document_BK.diff(dim=1, prepend=self.document_BK[:, :1]) != 0
        return changes_BK | first_1K

    @cached_property
    def chunk_BK(self) -> Tensor:
        """Number of the chunk that a token is in. Documents must not be interleaved."""
        behind_extra_BK = torch.nn.functional.pad(self.is_extra_BK[:, :-1], (1, 0))
        return (behind_extra_BK | self.starts_BK).cumsum(dim=1) - 1

    @cached_property
    def in_document_BK(self) -> Tensor:
        """How many tokens of its own document stand before a token; documents may be interleaved."""
        if self.document_BK is None:
            return torch.arange(self.n, device=self.place_BK.device)[None]
        sorted_BK, order_BK = self.document_BK.sort(dim=1, stable=True)
        place_1K = torch.arange(self.n, device=sorted_BK.device)[None]
        begins_BK = sorted_BK.diff(dim=1, prepend=sorted_BK[:, :1] - 1) != 0
        rank_BK = place_1K - (place_1K * begins_BK).cummax(dim=1).values
        return torch.zeros_like(rank_BK).scatter(1, order_BK, rank_BK)
