"""Loss per source token, in nats and in bits per byte of text, as one torchmetrics metric.

Arms are compared on this number: only source targets are scored, so a model that reads meta-tokens is not credited
for predicting them, and bits per byte does not depend on the tokenizer's vocabulary.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class SourceTokenLoss(Metric):
    """Mean negative log-likelihood of scored targets.

    `compute` returns ``{"nats": per scored target, "bits_per_byte": code length over the bytes of those targets}``.
    The end-of-document mark counts as a target of zero bytes: its code length is part of the text's.
    """

    full_state_update = False
    higher_is_better = False
    nll: Tensor
    n_targets: Tensor
    n_bytes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nll", "n_targets", "n_bytes"):
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll_BT: Tensor, targets_BT: Tensor, bytes_V: Tensor) -> None:
        """Add a batch: `nll_BT` in nats (0 where the target is -100) and the byte length of every token id."""
        scored_BT = targets_BT >= 0
        self.nll += nll_BT.detach().double().sum()
        self.n_targets += scored_BT.sum()
        self.n_bytes += (bytes_V[targets_BT.clamp(min=0)] * scored_BT).sum()

    def compute(self) -> dict[str, Tensor]:
        """Both units; NaN before any target was seen."""
        return {"nats": self.nll / self.n_targets, "bits_per_byte": self.nll / math.log(2) / self.n_bytes}


def bytes_per_target(nats: float, bits_per_byte: float) -> float:
    """Bytes of text that stand behind a scored target, on average: what tells the text of two losses apart."""
    return nats / math.log(2) / bits_per_byte if bits_per_byte else math.nan
