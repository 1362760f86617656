"""What is known of each token before any layer runs: all that a pattern may ask.

    place        0 1 2 3 4 5       order: later tokens have larger ones
    extra        . . * . . *       whether it is an extra token (a meta-token)
    document     0 0 0 1 1 1       tokens of different ones do not see each other
    chunk        0 0 0 1 1 1       an extra token ends its chunk, and so does the end of a document
    segment      0 0 0 1 1 1       the same with a run of extra tokens, which ends one segment together
    in_document  0 1 2 0 1 2       how many tokens of its document stand before it
    behind       . . x . . x       whether an extra token of its document stands at its place or before
    prompt       x x . x x .       whether one stands behind it alone: the first of a document closes its prompt

The facts of a pass are those of its keys; its queries are some rows of them. In generation the cache keeps them, so
that the row of a token is the same whether it is read alone or with all others, and with all keys or with those alone
that are still kept (`take`).
"""

from collections.abc import Callable
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
    known_chunk_BK: Tensor | None = None
    """`chunk_BK`, where tokens that it counts are not among these; None: it is counted here."""
    known_in_document_BK: Tensor | None = None
    """`in_document_BK`, likewise."""
    known_segment_BK: Tensor | None = None
    """`segment_BK`, likewise."""
    known_behind_BK: Tensor | None = None
    """`behind_BK`, likewise."""
    known_prompt_BK: Tensor | None = None
    """`prompt_BK`, likewise."""

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
        """These tokens and later ones of their documents; both have extra tokens said.

        Where documents are told apart here, the later tokens are of the last one's.
        """
        assert self.extra_BK is not None, "say which tokens are extra"
        assert later.extra_BK is not None, "say which tokens are extra"
        assert later.document_BK is None, "one document a sample"
        ends_B1 = self.extra_BK[:, -1:].long()
        chunks_B1 = self.chunk_BK[:, -1:] + ends_B1
        segments_B1 = self.segment_BK[:, -1:] + ends_B1 * ~later.extra_BK[:, :1]
        pairs = (
            (self.place_BK, later.place_BK),
            (self.extra_BK, later.extra_BK),
            (self.chunk_BK, later.chunk_BK + chunks_B1),
            (self.in_document_BK, later.in_document_BK + self.in_document_BK[:, -1:] + 1),
            (self.segment_BK, later.segment_BK + segments_B1),
            (self.behind_BK, later.behind_BK | self.behind_BK[:, -1:]),
        )
        place_BK, extra_BK, *counted = (torch.cat(_alike(*pair), dim=1) for pair in pairs)
        document_BK = self.document_BK
        if document_BK is not None:
            document_BK = torch.cat((document_BK, document_BK[:, -1:].expand(-1, later.n)), dim=1)
        return Facts(place_BK, extra_BK, document_BK, *counted)

    def take(self, kept: slice | Tensor) -> "Facts":
        """Some of these tokens, in order: a slice of all samples, or long [B, K'], places among these by sample."""

        def of(x_BK: Tensor) -> Tensor:
            return x_BK[:, kept] if isinstance(kept, slice) else x_BK.expand(len(kept), -1).gather(1, kept)

        extra_BK, document_BK = (None if x is None else of(x) for x in (self.extra_BK, self.document_BK))
        counted = (self.chunk_BK, self.in_document_BK, self.segment_BK, self.behind_BK, self.prompt_BK)
        return Facts(of(self.place_BK), extra_BK, document_BK, *map(of, counted))

    def queries(self, rows: slice) -> "Tokens":
        """Some of these tokens as rows of a table, [B, Q, 1]."""
        return Tokens(self, lambda x_BK: x_BK[:, rows].unsqueeze(-1))

    def keys(self, columns: slice | Tensor | None = None) -> "Tokens":
        """All of these tokens as columns of a table, [B, 1, K], or some."""
        return Tokens(self, lambda x_BK: (x_BK if columns is None else x_BK[:, columns]).unsqueeze(-2))

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
        if self.known_chunk_BK is not None:
            return self.known_chunk_BK
        behind_extra_BK = torch.nn.functional.pad(self.is_extra_BK[:, :-1], (1, 0))
        return (behind_extra_BK | self.starts_BK).cumsum(dim=1) - 1

    @cached_property
    def segment_BK(self) -> Tensor:
        """Number of the segment that a token is in: of text and the run of extra tokens behind it."""
        if self.known_segment_BK is not None:
            return self.known_segment_BK
        behind_extra_BK = torch.nn.functional.pad(self.is_extra_BK[:, :-1], (1, 0))
        return ((behind_extra_BK & ~self.is_extra_BK) | self.starts_BK).cumsum(dim=1) - 1

    @cached_property
    def in_document_BK(self) -> Tensor:
        """How many tokens of its own document stand before a token; documents may be interleaved."""
        if self.known_in_document_BK is not None:
            return self.known_in_document_BK
        if self.document_BK is None:
            return torch.arange(self.n, device=self.place_BK.device)[None]
        return counted_before(torch.ones_like(self.document_BK), self.document_BK)

    @cached_property
    def behind_BK(self) -> Tensor:
        """Whether a token stands behind its document's prompt, the first extra token among these; documents may be
        interleaved."""
        if self.known_behind_BK is not None:
            return self.known_behind_BK
        extra_BK = self.is_extra_BK.long()
        if self.document_BK is None:
            return extra_BK.cumsum(dim=1) > 0
        return counted_before(extra_BK, self.document_BK) + extra_BK > 0

    @cached_property
    def prompt_BK(self) -> Tensor:
        """Whether a token is of its document's prompt, all before its first extra token; without one there is none."""
        if self.known_prompt_BK is not None:
            return self.known_prompt_BK
        if self.document_BK is None:
            return ~self.behind_BK & self.behind_BK[:, -1:]
        from_end = (x.flip(1) for x in (self.behind_BK.long(), self.document_BK))
        return ~self.behind_BK & (counted_before(*from_end).flip(1) > 0)


def counted_before(x_BK: Tensor, document_BK: Tensor) -> Tensor:
    """The sum of the numbers of a document's tokens before each of its tokens, whole numbers from 0 on, [B, K]."""
    sorted_BK, order_BK = document_BK.sort(dim=1, stable=True)
    x_BK = x_BK.expand_as(order_BK).gather(1, order_BK)
    before_BK = x_BK.cumsum(dim=1) - x_BK
    begins_BK = sorted_BK.diff(dim=1, prepend=sorted_BK[:, :1] - 1) != 0
    rank_BK = before_BK - (before_BK * begins_BK).cummax(dim=1).values
    return torch.zeros_like(rank_BK).scatter(1, order_BK, rank_BK)


def evenly(n: int, share: float) -> Tensor:
    """Which of `n` tokens are extra, bool [n], where `share` of them are, at even distances."""
    return ((torch.arange(n) + 1) * share).floor().diff(prepend=torch.zeros(1)) > 0


class Tokens:
    """Facts of some tokens, laid out so that those of queries and of keys broadcast to a table of pairs."""

    def __init__(self, facts: Facts, laid_out: Callable[[Tensor], Tensor]) -> None:
        self._facts, self._laid_out = facts, laid_out

    @cached_property
    def place(self) -> Tensor:
        """Order: later tokens have larger ones."""
        return self._laid_out(self._facts.place_BK)

    @cached_property
    def extra(self) -> Tensor:
        """Bool: whether it is an extra token."""
        return self._laid_out(self._facts.is_extra_BK)

    @cached_property
    def document(self) -> Tensor | None:
        """None: one document a sample."""
        return None if self._facts.document_BK is None else self._laid_out(self._facts.document_BK)

    @cached_property
    def chunk(self) -> Tensor:
        """Number of the chunk it is in."""
        return self._laid_out(self._facts.chunk_BK)

    @cached_property
    def segment(self) -> Tensor:
        """Number of the segment it is in."""
        return self._laid_out(self._facts.segment_BK)

    @cached_property
    def in_document(self) -> Tensor:
        """How many tokens of its document stand before it."""
        return self._laid_out(self._facts.in_document_BK)

    @cached_property
    def behind(self) -> Tensor:
        """Bool: whether it stands behind its document's prompt."""
        return self._laid_out(self._facts.behind_BK)

    @cached_property
    def prompt(self) -> Tensor:
        """Bool: whether it is of its document's prompt."""
        return self._laid_out(self._facts.prompt_BK)


def _alike(one_BK: Tensor, other_BK: Tensor) -> tuple[Tensor, Tensor]:
    n = max(len(one_BK), len(other_BK))
    return one_BK.expand(n, -1), other_BK.expand(n, -1)
