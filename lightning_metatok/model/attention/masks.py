"""Masks as tensors, which backends make or are given: True where a query (row) may look at a key (column).

WHAT may be seen is said by the rules in `patterns`; how attention under it is computed is the backends' business.
"""

import torch
from torch import Tensor


def causal(n_queries: int, n_keys: int | None = None, device: torch.device | None = None) -> Tensor:
    """Keys up to the query's own place; the queries are the last `n_queries` of the `n_keys` places.

    x . . .
    x x . .
    x x x .
    x x x x        [n_queries, n_keys]
    """
    n_keys = n_queries if n_keys is None else n_keys
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def additive(
    allowed: Tensor,
    soft: Tensor,
    fill: float,
    dtype: torch.dtype,
) -> Tensor:
    """The mask to add to scores: 0 where both rules hold, `fill` where only `allowed` does, -inf elsewhere.

    This is the finite reading of the paper's P. A row in which `soft` holds nowhere gets one constant added,
    which softmax does not see: such a row attends to everything that `allowed` lets it see.
    """
    zeros = torch.zeros(torch.broadcast_shapes(allowed.shape, soft.shape), dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~soft, fill).masked_fill(~allowed, -torch.inf)
