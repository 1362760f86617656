"""Loss by how much text stands before a token: what a model makes of distant context.

    source tokens of its document before a target, in its block     1   2 3   4 5 6 7   8 9 ...
    loss_behind/N, N =                                              1   2     4         8

Meta-tokens do not count, so that a bin holds the same targets in every arm. Without `data.separate_documents` a model
sees the documents before, too; the bins are the same.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_metatok.data import Batch

BINS = 24
"""Behind 2^22 tokens and more: longer blocks share the last."""


class ContextLoss(Metric):
    """Mean negative log-likelihood of scored targets by source tokens before them; bins double."""

    full_state_update = False
    nll_N: Tensor
    n_targets_N: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nll_N", "n_targets_N"):
            self.add_state(name, default=torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll_BT: Tensor, batch: Batch) -> None:
        """Add a batch: `nll_BT` in nats, 0 where the target is -100."""
        scored_BT = batch.targets_BT >= 0
        number_BT = bin_of(context(batch.document_ids_BT, batch.meta_mask_BT))[scored_BT]
        self.nll_N += torch.zeros_like(self.nll_N).index_add(0, number_BT, nll_BT.detach()[scored_BT].double())
        self.n_targets_N += torch.bincount(number_BT, minlength=BINS)

    def compute(self) -> dict[str, Tensor]:
        """``{"loss_behind/N": nats}`` of the bins that have targets, N their fewest tokens."""
        means_N = self.nll_N / self.n_targets_N
        return {f"loss_behind/{2**i}": means_N[i] for i in range(BINS) if self.n_targets_N[i] > 0}


def context(document_ids_BT: Tensor, meta_mask_BT: Tensor) -> Tensor:
    """Source tokens of its document that a block holds up to each place: what stands before the target there.

    The documents of a row stand one behind the other.
    """
    source_BT = (~meta_mask_BT).long()
    so_far_BT = source_BT.cumsum(dim=1)
    new_BT = document_ids_BT.diff(dim=1, prepend=document_ids_BT[:, :1] - 1) != 0
    before_document_BT = ((so_far_BT - source_BT) * new_BT).cummax(dim=1).values
    return so_far_BT - before_document_BT


def bin_of(n_BT: Tensor) -> Tensor:
    """Number of the bin: of 1, of 2 and 3, of 4 to 7, ...; a mark at the start of a document counts as 1."""
    return n_BT.clamp(min=1).double().log2().floor().long().clamp(max=BINS - 1)
