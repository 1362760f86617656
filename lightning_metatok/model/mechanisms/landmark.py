"""Landmark attention: earlier blocks of text are reached through the extra token that ends them.

    text of b = 0 | * | text of b = 1 | * | text of b = 2, with the query i         s_ij = q_i . k_j / sqrt(H)

    P = softmax of s_i over the text of the query's own block up to i, and the landmarks * of all earlier blocks
    weight of j in the own block     P(j)
    weight of j in an earlier block  P(its landmark) * softmax of s_i over that block's text (j)

top    of the earlier blocks, only so many with the best landmarks are read, query by query and head by head, and share
       the softmax: what the authors do in generation. Not given: all
exact  a block is scored by what it holds, log sum_{k in b} exp s_ik, in place of its landmark: with all blocks read
       that is plain attention over the text, with few its best approximation by blocks

That is one softmax over all text, of the scores s_ij + s_i*(b) - log sum_{k in b} exp s_ik in earlier blocks: a
transform of scores. Landmarks have no weight themselves, and that of the own block is not looked at, even by itself. No
weights are added. Mohtashami and Jaggi, NeurIPS 2023, arXiv 2305.16300: a landmark behind every 50 tokens.

An earlier block without text has nobody to give its share to, and takes none: here each row sums to 1, in the authors'
code to less. A landmark before which there is no text at all sees itself.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.plan import Forward, Transform
from lightning_metatok.model.mechanisms.base import Mechanism, refuse
from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.positions.score_bias import visible
from lightning_metatok.options import at_least

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class LandmarkAttention(Mechanism):
    """Scores of earlier blocks are those of their landmarks, shared out among their text."""

    transforms_scores: ClassVar[bool] = True
    needs_all_keys = True
    cannot: ClassVar[Mapping[str, str]] = {"ahead": "a block is closed by the mark behind it"}
    free_after_training: ClassVar[frozenset[str]] = frozenset({"top"})

    def __init__(self, *, top: Annotated[int | None, at_least(1)] = None, exact: bool = False) -> None:
        self.top, self.exact = top, exact

    def says(self) -> list[str]:
        return [*(["exact"] if self.exact else []), *([] if self.top is None else [f"top {self.top}"])]

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
            return grouped_scores(scores_BNQK, facts, n_chunks, rows, top=self.top, exact=self.exact)

        return grouped


def grouped_scores(
    scores_BNQK: Tensor,
    facts: Facts,
    n_chunks: int,
    rows: Rows,
    *,
    top: int | None = None,
    exact: bool = False,
) -> Tensor:
    """Return scores whose softmax is the grouped one; `facts` are those of all keys, C = `n_chunks` their chunks."""
    scores = scores_BNQK.to(torch.promote_types(scores_BNQK.dtype, torch.float32))
    Q, K = scores.shape[-2:]
    queries = slice(rows.first, rows.first + Q)
    extra_B11K = facts.is_extra_BK[:, None, None, :K]
    chunk_B11K = facts.chunk_BK[:, None, None, :K]
    own_B1QK = facts.chunk_BK[:, None, queries, None] == chunk_B11K
    text_BNQK = scores.masked_fill(extra_B11K | ~visible(scores, rows), -torch.inf)

    at_BNQK = chunk_B11K.expand_as(scores)
    nothing_BNQC = scores.new_zeros(*scores.shape[:-1], n_chunks)
    landmark_BNQC = nothing_BNQC.scatter_add(-1, at_BNQK, scores.masked_fill(~extra_B11K, 0))
    # Of the text of each chunk: the largest score first, so that nothing overflows.
    largest_BNQC = (nothing_BNQC - torch.inf).scatter_reduce(-1, at_BNQK, text_BNQK.detach(), "amax")
    largest_BNQC = largest_BNQC.masked_fill(largest_BNQC.isneginf(), 0)
    sums_BNQC = nothing_BNQC.scatter_add(-1, at_BNQK, (text_BNQK - largest_BNQC.gather(-1, at_BNQK)).exp())
    total_BNQC = largest_BNQC + sums_BNQC.masked_fill(sums_BNQC == 0, 1).log()

    weight_BNQC = total_BNQC if exact else landmark_BNQC
    shifted_BNQK = text_BNQK + (weight_BNQC - total_BNQC).gather(-1, at_BNQK)
    if top is not None and top < n_chunks:
        own_B1QC = facts.chunk_BK[:, None, queries, None] == torch.arange(n_chunks, device=scores.device)
        rank_BNQC = weight_BNQC.detach().masked_fill((sums_BNQC == 0) | own_B1QC, -torch.inf)
        read_BNQC = torch.zeros_like(rank_BNQC, dtype=torch.bool).scatter(-1, rank_BNQC.topk(top, dim=-1).indices, True)
        shifted_BNQK = shifted_BNQK.masked_fill(~read_BNQC.gather(-1, at_BNQK), -torch.inf)
    grouped_BNQK = torch.where(own_B1QK, text_BNQK, shifted_BNQK)
    alone_BNQ1 = text_BNQK.isneginf().all(dim=-1, keepdim=True)
    itself_QK = torch.ones(Q, K, dtype=torch.bool, device=scores.device).tril(rows.first).triu(rows.first)
    return torch.where(alone_BNQ1 & itself_QK, scores, grouped_BNQK)
