"""Losses by the text before a target: each target in its bin, whatever marks and documents there are."""

from collections import defaultdict

import pytest
import torch

from lightning_metatok.data import Batch
from lightning_metatok.lit.context_loss import ContextLoss, context


def test_each_target_is_in_the_bin_of_what_stands_before_it() -> None:
    generator = torch.Generator().manual_seed(0)
    B, T = 3, 37
    meta_BT = torch.rand(B, T, generator=generator) < 0.2
    documents_BT = (torch.rand(B, T, generator=generator) < 0.1).long().cumsum(dim=1)
    targets_BT = torch.randint(0, 5, (B, T), generator=generator).masked_fill(meta_BT, -100)
    tokens_BT = torch.zeros(B, T, dtype=torch.int64)
    batch = Batch(tokens_BT, targets_BT, meta_BT, documents_BT, tokens_BT)
    nll_BT = torch.rand(B, T, generator=generator)
    bins: dict[int, list[float]] = defaultdict(list)
    for b in range(B):
        for t in range(T):
            before = sum(bool(documents_BT[b, s] == documents_BT[b, t] and not meta_BT[b, s]) for s in range(t + 1))
            assert context(documents_BT, meta_BT)[b, t] == before
            if targets_BT[b, t] >= 0:
                bins[2 ** (before.bit_length() - 1)].append(float(nll_BT[b, t]))
    metric = ContextLoss()
    for row in range(B):  # batch by batch
        metric.update(nll_BT[row : row + 1], Batch(*(x[row : row + 1] for x in vars(batch).values())))
    values = metric.compute()
    assert set(values) == {f"loss_behind/{n}" for n in bins}
    for n, losses in bins.items():
        assert values[f"loss_behind/{n}"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)
