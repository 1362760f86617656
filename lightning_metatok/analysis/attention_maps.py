"""Attention in numbers: who looks at whom, and how far back.

    mass       of a query's attention, the share that goes to keys of a kind; beside it the share that uniform attention
               over what the query may see would give: a kind with many keys gets much by numbers alone
    distance   mean attention to a key that stands d places back, where there is such a key

Rows that attend to nothing (ordinary tokens in meta-attention) are left out.
"""

import torch
from torch import Tensor


def mass_by_kind(
    probs_BTT: Tensor,
    query_BT: Tensor,
    key_BT: Tensor,
    visible_BTT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, a sample each, [B]: mean mass that queries of one kind give keys of another, the same under uniform
    attention over `visible_BTT`, and how many queries that is the mean of (0: then both are 0)."""
    active_BT = query_BT & (probs_BTT.sum(dim=-1) > 0)
    mass_BT = (probs_BTT * key_BT.unsqueeze(1)).sum(dim=-1)
    uniform_BT = (visible_BTT & key_BT.unsqueeze(1)).sum(dim=-1) / visible_BTT.sum(dim=-1).clamp(min=1)
    n_B = active_BT.sum(dim=1)
    mean = [(x * active_BT).sum(dim=1) / n_B.clamp(min=1) for x in (mass_BT, uniform_BT)]
    return mean[0], mean[1], n_B


def mean_by_distance(
    probs_BTT: Tensor,
    query_BT: Tensor,
    key_BT: Tensor,
    visible_BTT: Tensor,
    furthest: int,
) -> tuple[Tensor, Tensor]:
    """Return sum of attention and number of pairs at each distance 0, ..., `furthest`, [furthest + 1] both."""
    pairs_BTT = query_BT.unsqueeze(2) & key_BT.unsqueeze(1) & visible_BTT & (probs_BTT.sum(dim=-1) > 0).unsqueeze(2)
    T = probs_BTT.shape[-1]
    distance_TT = torch.arange(T, device=probs_BTT.device)[:, None] - torch.arange(T, device=probs_BTT.device)
    b, i, j = torch.nonzero(pairs_BTT & (distance_TT <= furthest) & (distance_TT >= 0), as_tuple=True)
    sums = torch.zeros(furthest + 1, dtype=torch.float64, device=probs_BTT.device)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, distance_TT[i, j], probs_BTT[b, i, j].double())
    counts.index_add_(0, distance_TT[i, j], torch.ones_like(i, dtype=torch.float64))
    return sums, counts
