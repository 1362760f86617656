"""HOW, the oracle: attention written out as in the textbook, right in float64, slow.

    softmax(q k^T / sqrt(H) + mask) v          a row that may see no key gives 0, not NaN

All other backends are tested against this one. Encodings that transform the scores need it, or `blocked`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_metatok.model.attention import masks
from lightning_metatok.model.positions.base import Rows


@dataclass(frozen=True)
class Score:
    """What is done to scores, and what stands beside them in the softmax."""

    transform: Callable[[Tensor, Rows], Tensor] | None
    """A positional encoding's or a mechanism's: takes scaled scores and is told which rows they are; None: nothing."""

    parameters: tuple[Tensor, ...] = ()
    """What its gradients go to, beside scores, q and k."""

    sink_N: Tensor | None = None
    """The score of nothing, one a head: what a row need not give to any key (`config.denominator`)."""

    def __call__(self, scores_BNQK: Tensor, rows: Rows) -> Tensor:
        return scores_BNQK if self.transform is None else self.transform(scores_BNQK, rows)


NAME = "reference"
TAKES_SCORES = True
TAKES_SIGHTS = False
TAKES_MASKS = True
attend_ragged = None


def why_not(
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense_mask: bool,
    score: bool,
) -> str | None:
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
    first: int | None = None,
) -> Tensor:
    """Attention of Q queries over K keys.

    Args:
        q_BNQH, k_BNKH, v_BNKH: queries, keys and values.
        mask: bool (True: may see) or float (added to the scores), broadcast to [B, N, Q, K]; None: causal,
            and for one query alone all keys.
        score: transforms the scaled scores before the mask.
        dropout: probability of dropping an attention weight.
        first: place of the first query among the keys, for `score`; None: the queries are the last Q of the K places.

    Returns:
        [B, N, Q, H].
    """
    scores_BNQK = masked_scores(q_BNQH, k_BNKH, mask=mask, score=score, first=first)
    weights_BNQK = weights(scores_BNQK, None if score is None else score.sink_N)
    weights_BNQK = torch.nn.functional.dropout(weights_BNQK, dropout)
    return weights_BNQK.to(v_BNKH.dtype) @ v_BNKH


def masked_scores(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    score: Score | None = None,
    first: int | None = None,
) -> Tensor:
    """Scores [B, N, Q, K] as the softmax gets them, -inf where a query may not look. Arguments as for `attend`."""
    scores_BNQK = q_BNQH @ k_BNKH.transpose(-1, -2) * q_BNQH.shape[-1] ** -0.5
    if score is not None:
        first = k_BNKH.shape[-2] - q_BNQH.shape[-2] if first is None else first
        scores_BNQK = score(scores_BNQK, Rows(first, q_BNQH, k_BNKH, mask))
    if mask is None and q_BNQH.shape[-2] == 1:
        return scores_BNQK
    if mask is None:
        assert q_BNQH.shape[-2] == k_BNKH.shape[-2], "a causal mask needs as many queries as keys"
        mask = masks.causal(q_BNQH.shape[-2], device=q_BNQH.device)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores_BNQK.dtype).masked_fill(~mask, -torch.inf)
    return scores_BNQK + mask


def weights(scores_BNQK: Tensor, sink_N: Tensor | None = None) -> Tensor:
    """Attention probabilities of masked scores; a row that may see no key has 0 everywhere.

    With a sink p_ij = exp(s_ij) / (sum_j exp(s_ij) + exp(sink)): a row sums to less than 1.
    """
    if sink_N is not None:
        sink_BNQ1 = sink_N.to(scores_BNQK.dtype).view(1, -1, 1, 1).expand(*scores_BNQK.shape[:-1], 1)
        return torch.cat((scores_BNQK, sink_BNQ1), dim=-1).softmax(dim=-1)[..., :-1]
    blind_BNQ1 = scores_BNQK.isneginf().all(dim=-1, keepdim=True)
    # Softmax over a row of -inf would be NaN in the backward pass too, so such rows are made finite first.
    return scores_BNQK.masked_fill(blind_BNQ1, 0.0).softmax(dim=-1).masked_fill(blind_BNQ1, 0.0)
