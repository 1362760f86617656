"""Text that is weighted chunk by chunk: one softmax over all of it, in which earlier chunks have weights as wholes.

    text of b = 0 | * | text of b = 1 | * | text of b = 2, with the query i         s_ij = q_i . k_j / sqrt(H)

    P = softmax of s_i over the text of the query's own chunk up to i, and of z_i(b) of all earlier chunks b
    weight of j in the own chunk     P(j)
    weight of j in an earlier chunk  P(b) * softmax of s_i over that chunk's text (j)

That is one softmax over all text, of the scores s_ij + z_i(b) - log sum_{k in b} exp s_ik in earlier chunks: a
transform of scores. What z_i(b) is says a mechanism: `landmark`, `hils`. Extra tokens have no weight themselves.

An earlier chunk without text has nobody to give its share to, and takes none: each row sums to 1. An extra token before
which there is no text at all sees itself.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.plan import Forward, Transform
from lightning_metatok.model.mechanisms.base import Mechanism, refuse
from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.positions.score_bias import visible

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class Chunks:
    """A block of scores, and what its queries see of the text of each of C chunks."""

    def __init__(self, scores_BNQK: Tensor, facts: Facts, n_chunks: int, rows: Rows) -> None:
        """`facts` are those of all keys, `n_chunks` how many chunks these are in."""
        self.scores_BNQK = scores_BNQK.to(torch.promote_types(scores_BNQK.dtype, torch.float32))
        self.facts, self.n_chunks, self.rows = facts, n_chunks, rows
        Q, K = scores_BNQK.shape[-2:]
        self.extra_B11K = facts.is_extra_BK[:, None, None, :K]
        self.of_query_B1Q1 = facts.chunk_BK[:, None, rows.first : rows.first + Q, None]
        self.of_key_B11K = facts.chunk_BK[:, None, None, :K]
        self.at_BNQK = self.of_key_B11K.expand_as(scores_BNQK)
        self.text_BNQK = self.scores_BNQK.masked_fill(self.extra_B11K | ~visible(scores_BNQK, rows), -torch.inf)
        """Scores of text that a query sees, and -inf."""

    def sum(self, x_BNQK: Tensor) -> Tensor:
        """Sums over the keys of each chunk, [B, N, Q, C]."""
        return self._nothing_BNQC.scatter_add(-1, self.at_BNQK, x_BNQK)

    @cached_property
    def _nothing_BNQC(self) -> Tensor:
        return self.scores_BNQK.new_zeros(*self.scores_BNQK.shape[:-1], self.n_chunks)

    @cached_property
    def _largest_and_sums(self) -> tuple[Tensor, Tensor]:
        """The largest score of the text of each chunk, and sums of exp(score - it), so that nothing overflows."""
        return largest_and_sums(self.text_BNQK, self.at_BNQK, self._nothing_BNQC)

    @property
    def empty_BNQC(self) -> Tensor:
        """Whether a query sees no text of a chunk."""
        return self._largest_and_sums[1] == 0

    @cached_property
    def total_BNQC(self) -> Tensor:
        """What each chunk holds, log sum exp of the scores of its text; 0 where there is none."""
        largest_BNQC, sums_BNQC = self._largest_and_sums
        return largest_BNQC + sums_BNQC.masked_fill(sums_BNQC == 0, 1).log()


def largest_and_sums(scores: Tensor, at: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest score of each chunk, 0 where all are -inf, and sums of exp(score - it).

    Args:
        scores: [..., K]. at: the chunk of each, [..., K]. nothing: zeros, [..., C].
    """
    largest = (nothing - torch.inf).scatter_reduce(-1, at, scores.detach(), "amax")
    largest = largest.masked_fill(largest.isneginf(), 0)
    return largest, nothing.scatter_add(-1, at, (scores - largest.gather(-1, at)).exp())


class GroupedAttention(Mechanism):
    """Earlier chunks have weights as wholes; a mechanism says which."""

    transforms_scores: ClassVar[bool] = True
    needs_all_keys = True
    cannot: ClassVar[Mapping[str, str]] = {"ahead": "it weights earlier chunks as wholes"}
    free_after_training: ClassVar[frozenset[str]] = frozenset({"top", "back"})
    top: int | None = None
    """How many of the earlier chunks are read, those with the largest weights, query by query and head by head."""
    back: int = 0
    """How many chunks before the own one are read as it is."""

    def weight(self, chunks: Chunks) -> Tensor:
        """Return z_i(b) of all chunks, [B, N, Q, C]."""
        raise NotImplementedError

    def check(self, config: "TransformerConfig") -> None:
        if self.top is not None and self.top > config.max_positions:
            raise refuse(
                "top", self.top, f"no more blocks than model.max_positions={config.max_positions} has room for"
            )

    @property
    def idle(self) -> bool:
        return False

    def transform(self, forward: Forward) -> Transform | None:
        facts = forward.facts
        if facts.extra_BK is None:
            return None
        n_chunks = int(facts.chunk_BK.max()) + 1

        def grouped(scores_BNQK: Tensor, *, layer: int, rows: Rows) -> Tensor:
            chunks = Chunks(scores_BNQK, facts, n_chunks, rows)
            return grouped_scores(chunks, self.weight, top=self.top, back=self.back)

        return grouped


def grouped_scores(
    chunks: Chunks, weight: Callable[[Chunks], Tensor], *, top: int | None = None, back: int = 0
) -> Tensor:
    """Return scores whose softmax is the grouped one, [B, N, Q, K]; arguments as of `GroupedAttention`."""
    scores, text_BNQK, first = chunks.scores_BNQK, chunks.text_BNQK, chunks.rows.first
    Q, K = scores.shape[-2:]
    weight_BNQC = weight(chunks)
    shifted_BNQK = text_BNQK + (weight_BNQC - chunks.total_BNQC).gather(-1, chunks.at_BNQK)
    oldest_B1Q1 = chunks.of_query_B1Q1 - back
    if top is not None and top < chunks.n_chunks:
        near_B1QC = torch.arange(chunks.n_chunks, device=scores.device) >= oldest_B1Q1
        rank_BNQC = weight_BNQC.detach().masked_fill(chunks.empty_BNQC | near_B1QC, -torch.inf)
        read_BNQC = torch.zeros_like(rank_BNQC, dtype=torch.bool).scatter(-1, rank_BNQC.topk(top, dim=-1).indices, True)
        shifted_BNQK = shifted_BNQK.masked_fill(~read_BNQC.gather(-1, chunks.at_BNQK), -torch.inf)
    grouped_BNQK = torch.where(chunks.of_key_B11K >= oldest_B1Q1, text_BNQK, shifted_BNQK)
    alone_BNQ1 = text_BNQK.isneginf().all(dim=-1, keepdim=True)
    itself_QK = torch.ones(Q, K, dtype=torch.bool, device=scores.device).tril(first).triu(first)
    return torch.where(alone_BNQ1 & itself_QK, scores, grouped_BNQK)
