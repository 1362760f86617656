"""HiLS: earlier chunks of text are scored by a key that the query of the extra token behind them, their mark, pools.

    p_j    = softmax of q_mark . k_j / sqrt(H) over the text j of chunk b
    k'(b)  = sum_j p_j k_j,   b'(b) = entropy of p
    z_i(b) = q_i . k'(b) / sqrt(H) + b'(b) = sum_j p_j (s_ij - log p_j)        the weights of `grouped`

That is log sum_j exp s_ij to first order, exact where q_i is the mark's query and nowhere above it. What chooses chunks
is what weights them, so that a choice has a gradient: into the mark's query and the keys of its chunk.

top      of the earlier chunks, only so many with the largest z are read, query by query and head by head; null: all
back     so many chunks before the own one are read as text, whatever their marks say: the window
pool     query: as above; mean: all of a chunk's keys alike, and its mark does nothing
entropy  false: without b'

A mark is nobody's key, so its query stands in the place of its key, in the cache, too. A query that sees a part of a
chunk (a pattern) has p of that part. p is of queries and keys as rotations leave them: what a position adds to scores
is in s_ij alone. arXiv 2607.02980: a mark behind every 63 tokens with the position of the next, a window of 512, 32
chunks, of which the heads of a group choose the same; not here: that, and marks' low-rank addition to their queries.
"""

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor

from lightning_metatok.model.attention.layers import Attention, AttentionPlan
from lightning_metatok.model.mechanisms.grouped import Chunks, GroupedAttention, largest_and_sums
from lightning_metatok.options import at_least

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class QueriesAsKeys(Attention):
    """Self-attention in which the query of an extra token stands in the place of its key."""

    def turned(self, q: Tensor, k: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor]:
        q, k = super().turned(q, k, plan)
        return q, k if plan.extra_BT is None else torch.where(plan.extra_BT[:, None, :, None], q, k)


class HiLS(GroupedAttention):
    """Scores of earlier chunks are those of keys pooled by their marks' queries, shared out among their text."""

    def __init__(
        self,
        *,
        top: Annotated[int | None, at_least(1)] = None,
        back: Annotated[int, at_least(0)] = 0,
        pool: Literal["query", "mean"] = "query",
        entropy: bool = True,
    ) -> None:
        self.top, self.back, self.pool, self.entropy = top, back, pool, entropy

    def says(self) -> list[str]:
        return [
            *([] if self.top is None else [f"top {self.top}"]),
            *([f"back {self.back}"] if self.back else []),
            *([self.pool] if self.pool != "query" else []),
            *([] if self.entropy else ["no entropy"]),
        ]

    def attention(self, config: "TransformerConfig", layer: int) -> Attention:
        return QueriesAsKeys(config, layer=layer)

    def weight(self, chunks: Chunks) -> Tensor:
        return of_pooled_keys(chunks, log_pool(chunks, self.pool), entropy=self.entropy)


def log_pool(chunks: Chunks, pool: str = "query") -> Tensor:
    """Return log p_j of all keys, [B, N, K]: -inf at extra tokens, of no use in a chunk that no mark ended yet."""
    k_BNKH = chunks.rows.k_BNKH.to(chunks.scores_BNQK.dtype)
    B, N, K, H = k_BNKH.shape
    extra_BK, chunk_BK = (x.expand(B, -1)[:, :K] for x in (chunks.facts.is_extra_BK, chunks.facts.chunk_BK))
    nothing_BNC = k_BNKH.new_zeros(B, N, chunks.n_chunks)
    at_BNK = chunk_BK.unsqueeze(1).expand(-1, N, -1)
    if pool == "mean":
        fits_BNK = k_BNKH.new_zeros(B, N, K)
    else:
        place_BK = torch.arange(K, device=k_BNKH.device) * extra_BK
        mark_BK = torch.zeros_like(place_BK[:, :1]).expand(-1, chunks.n_chunks).scatter_add(1, chunk_BK, place_BK)
        mark_BNKH = k_BNKH.gather(2, mark_BK.gather(1, chunk_BK)[:, None, :, None].expand(-1, N, -1, H))
        fits_BNK = (mark_BNKH * k_BNKH).sum(dim=-1) * H**-0.5
    fits_BNK = fits_BNK.masked_fill(extra_BK.unsqueeze(1), -torch.inf)
    largest_BNC, sums_BNC = largest_and_sums(fits_BNK, at_BNK, nothing_BNC)
    return fits_BNK - largest_BNC.gather(-1, at_BNK) - sums_BNC.masked_fill(sums_BNC == 0, 1).log().gather(-1, at_BNK)


def of_pooled_keys(chunks: Chunks, log_p_BNK: Tensor, *, entropy: bool = True) -> Tensor:
    """Return z_i(b) for pools p of all keys, [B, N, Q, C]; 0 where a query sees no text of a chunk."""
    blind_BNQK, log_p_BN1K = chunks.text_BNQK.isneginf(), log_p_BNK.unsqueeze(2)
    p_BNQK = log_p_BN1K.exp().masked_fill(blind_BNQK, 0)
    seen_BNQC = chunks.sum(p_BNQK)
    seen_BNQC = seen_BNQC.masked_fill(seen_BNQC == 0, 1)
    scores_BNQK = chunks.text_BNQK - log_p_BN1K if entropy else chunks.text_BNQK
    z_BNQC = chunks.sum(p_BNQK * scores_BNQK.masked_fill(blind_BNQK, 0)) / seen_BNQC
    return z_BNQC + seen_BNQC.log() if entropy else z_BNQC
