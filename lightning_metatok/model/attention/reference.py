"""HOW, the oracle: attention written out as in the textbook, right in float64, slow.

    softmax(q k^T / sqrt(H) + mask) v          a row that may see no key gives 0, not NaN

All other backends are tested against this one. It alone can run encodings that transform the scores.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_metatok.model.attention import masks
from lightning_metatok.model.positions.base import Rows

Score = Callable[[Tensor, Rows], Tensor]
"""Transforms scaled scores; told which rows they are."""

NAME = "reference"
TAKES_SCORES = True
attend_ragged = None


def why_not(*, device: torch.device, dtype: torch.dtype, dense_mask: bool, score: bool) -> str | None:
    """Why this backend cannot do the job; None: it can, always."""
    return None


def attend(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    v_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    score: Score | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of Q queries over K keys.

    Args:
        q_BNQH, k_BNKH, v_BNKH: queries, keys and values.
        mask: bool (True: may see) or float (added to the scores), broadcast to [B, N, Q, K]; None: causal.
        score: transforms the scaled scores before the mask; queries are the last Q of the K places.
        dropout: probability of dropping an attention weight.

    Returns:
        [B, N, Q, H].
    """
    scores_BNQK = q_BNQH @ k_BNKH.transpose(-1, -2) * q_BNQH.shape[-1] ** -0.5
    if score is not None:
        rows = Rows(k_BNKH.shape[-2] - q_BNQH.shape[-2], q_BNQH, k_BNKH, mask)
        scores_BNQK = score(scores_BNQK, rows)
    if mask is None:
        assert q_BNQH.shape[-2] == k_BNKH.shape[-2], "a causal mask needs as many queries as keys"
        mask = masks.causal(q_BNQH.shape[-2], device=q_BNQH.device)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores_BNQK.dtype).masked_fill(~mask, -torch.inf)
    scores_BNQK = scores_BNQK + mask
    blind_BNQ1 = scores_BNQK.isneginf().all(dim=-1, keepdim=True)
    # Softmax over a row of -inf would be NaN in the backward pass too, so such rows are made finite first.
    weights_BNQK = scores_BNQK.masked_fill(blind_BNQ1, 0.0).softmax(dim=-1).masked_fill(blind_BNQ1, 0.0)
    weights_BNQK = torch.nn.functional.dropout(weights_BNQK, dropout)
    return weights_BNQK.to(v_BNKH.dtype) @ v_BNKH
