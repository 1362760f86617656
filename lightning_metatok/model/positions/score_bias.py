"""What all encodings that act on scores have in common: a bias that follows from the positions of query and key.

    score(i, j) = q_i . k_j / sqrt(H) + bias_h(i, j)

Where the query's or the key's position is dropped the bias is 0, and the score is left as it is. Biases are computed
in float32 or better whatever the model's dtype: bfloat16 cannot tell neighbouring distances beyond 256 apart.
"""

import torch
from torch import Tensor

from lightning_metatok.model.positions.base import PositionEncoding, Rows


class ScoreBias(PositionEncoding):
    """A family whose `bias` is added to the scores."""

    transforms_scores = True

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        """Return the bias, broadcast to [B, N, Q, K].

        Args:
            query_BQ1, key_B1K: positions as floats, whose dtype the bias should have.
            layer: which layer's parameters to use.
        """
        raise NotImplementedError

    def kept_bias(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        layer: int,
        rows: Rows | None,
    ) -> Tensor:
        """Return the bias of a block of scores, 0 where a position is dropped."""
        dtype = torch.promote_types(scores_BNQK.dtype, torch.float32)
        query_BQ1, key_B1K = pairs(position_ids_BT, scores_BNQK, rows)
        bias_BNQK = self.bias(query_BQ1.to(dtype), key_B1K.to(dtype), layer)
        kept = kept_pairs(keep_BT, scores_BNQK, rows)
        return bias_BNQK if kept is None else bias_BNQK.masked_fill(~kept, 0)

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        return scores_BNQK + self.kept_bias(scores_BNQK, position_ids_BT, keep_BT, layer, rows)


def pairs(x_BT: Tensor, scores_BNQK: Tensor, rows: Rows | None) -> tuple[Tensor, Tensor]:
    """Return what stands in `x_BT` at the queries, [B, Q, 1], and at the keys, [B, 1, K], of a block of scores."""
    n_queries, n_keys = scores_BNQK.shape[-2:]
    first = n_keys - n_queries if rows is None else rows.first
    return x_BT[:, first : first + n_queries, None], x_BT[:, None, :n_keys]


def kept_pairs(keep_BT: Tensor | None, scores_BNQK: Tensor, rows: Rows | None) -> Tensor | None:
    """Return whether both positions of a pair are kept, [B, 1, Q, K]; None: all are."""
    if keep_BT is None:
        return None
    query_BQ1, key_B1K = pairs(keep_BT, scores_BNQK, rows)
    return (query_BQ1 & key_B1K).unsqueeze(1)


def visible(scores_BNQK: Tensor, rows: Rows | None) -> Tensor:
    """Return which keys a query may see, bool, broadcast to [B, N, Q, K]."""
    if rows is not None and rows.mask is not None:
        return rows.mask if rows.mask.dtype == torch.bool else ~rows.mask.isneginf()
    n_queries, n_keys = scores_BNQK.shape[-2:]
    first = n_keys - n_queries if rows is None else rows.first
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores_BNQK.device).tril(first)


def distance(query_BQ1: Tensor, key_B1K: Tensor) -> Tensor:
    """Return |i - j| for all pairs, [B, 1, Q, K]."""
    return (query_BQ1 - key_B1K).abs().unsqueeze(1)
